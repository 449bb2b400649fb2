"""Which queries answer for which objects: the best of all assignments, tried out one by one."""

from itertools import permutations

import pytest
import torch

from detrex.modeling import Known, Matches, OneToMany, OneToOne


def best_by_trying(cost):
    """Least total over all ways to give every object its own query, or every query its own object.

    ``cost`` has a row a query; the result are (query, object) pairs.
    """
    queries, objects = cost.shape
    if objects <= queries:
        ways = (list(zip(p, range(objects), strict=True)) for p in permutations(range(queries), objects))
    else:
        ways = (list(zip(range(queries), p, strict=True)) for p in permutations(range(objects), queries))
    return set(min(ways, key=lambda way: sum(cost[q, o].item() for q, o in way)))


def pairs_of(assignment, *costs):
    """The assigned (query, object) pairs of every image."""
    counts = [cost.shape[1] for cost in costs]
    found = assignment.pairs([assignment.values(cost, None, None) for cost in costs], counts)
    assert all(column.dtype == torch.int64 for image in found for column in image)
    return [list(zip(query.tolist(), obj.tolist(), strict=True)) for query, obj in found]


@pytest.mark.parametrize("objects", [1, 3, 5, 6])
@pytest.mark.parametrize("seed", range(3))
def test_no_other_assignment_costs_less(objects, seed):
    torch.manual_seed(seed)
    one, other = torch.randn(5, objects), torch.randn(4, 2)
    found = pairs_of(OneToOne(), one, torch.zeros(5, 0), other)
    assert [len(image) for image in found] == [min(5, objects), 0, 2]
    assert [set(image) for image in found] == [best_by_trying(one), set(), best_by_trying(other)]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_costs_that_are_not_finite_are_matched_all_the_same(value):
    cost = torch.randn(6, 3)
    cost[1:] = value
    (found,) = pairs_of(OneToOne(), cost)
    assert sorted(obj for _, obj in found) == [0, 1, 2] and len({query for query, _ in found}) == 3


def test_blocks_of_queries_are_matched_by_themselves():
    cost = torch.randn(12, 3)
    (found,) = pairs_of(OneToOne(blocks=3), cost)
    expected = [
        {(block * 4 + query, obj) for query, obj in best_by_trying(cost[block * 4 : block * 4 + 4])}
        for block in range(3)
    ]
    assert len(found) == 9 and set(found) == set.union(*expected)
    assert OneToOne(blocks=3).queries_per_object == 3 and OneToOne().queries_per_object == 1


def test_blocks_must_be_equal():
    with pytest.raises(ValueError, match="10 queries .* 3 equal blocks"):
        pairs_of(OneToOne(blocks=3), torch.randn(10, 2))


@pytest.mark.parametrize(("copies", "objects", "queries"), [(2, 3, 6), (3, 2, 6), (4, 2, 4)])
def test_one_to_many_is_one_to_one_with_every_object_several_times(copies, objects, queries):
    cost = torch.randn(queries, objects)  # the last with fewer queries than objects
    (found,) = pairs_of(OneToMany(copies), cost)
    expected = {(query, column % objects) for query, column in best_by_trying(cost.repeat(1, copies))}
    assert len(found) == min(queries, copies * objects) and set(found) == expected
    assert OneToMany(copies).queries_per_object == copies


def test_known_objects_are_at_their_places_in_every_block():
    known = Known(blocks=3, size=4)
    assert not known.needs_cost and known.queries_per_object == 3
    first, second, none = known.pairs([None] * 3, [2, 1, 0])
    assert [t.tolist() for t in first] == [[0, 1, 4, 5, 8, 9], [0, 1] * 3]
    assert [t.tolist() for t in second] == [[0, 4, 8], [0, 0, 0]]
    assert [t.tolist() for t in none] == [[], []]


def test_all_stages_are_assigned_alike_unless_an_assignment_says_otherwise():
    for assignment in (OneToOne(), OneToMany(2), Known(1, 2)):
        assert all(assignment.at_stage(stage, 3) is assignment for stage in range(3))


def test_matches_are_ordered_by_object_and_then_by_query():
    one = Matches(*torch.tensor([[0, 0], [1, 0], [5, 2], [3, 0]]))  # stages, images, queries, objects
    other = Matches(*torch.tensor([[1, 1], [0, 0], [7, 1], [1, 0]]))
    ordered = Matches.concatenate([one, other]).ordered_by_object()
    assert [column.tolist() for column in vars(ordered).values()] == [
        [1, 0, 1, 0],
        [0, 0, 0, 1],
        [1, 2, 7, 5],
        [0, 0, 1, 3],
    ]


def test_no_matches_at_all():
    for matches in (Matches.concatenate([]), Matches.concatenate([]).ordered_by_object()):
        assert all(column.shape == (0,) and column.dtype == torch.int64 for column in vars(matches).values())
