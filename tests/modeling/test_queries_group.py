"""Groups of queries: who sees whom."""

import pytest
import torch

from detrex.modeling import OneToMany, QueryGroup
from detrex.modeling.queries import blocked_pairs


def group(size=4, name="matching", **options):
    return QueryGroup(torch.zeros(1, size, 8), name=name, **options)


def denoising(blocks, size):
    return group(blocks * size, "denoising", blocks=blocks, sees=("matching",))


def by_roles(roles, also):
    """The attention mask where queries see their like, and besides what ``also`` (viewer, seen) says."""
    return torch.tensor([[a != b and (a[0], b[0]) not in also for b in roles] for a in roles])


@pytest.mark.parametrize("known", [None, (1, 5), (2, 3), (3, 0)])
@pytest.mark.parametrize("blocks", [1, 3])
def test_who_sees_whom(known, blocks):
    groups = [group(4 * blocks, blocks=blocks)]
    roles = [("matching", i) for i in range(blocks) for _ in range(4)]
    if known is not None:
        groups.insert(0, denoising(*known))
        roles = [("denoising", i) for i in range(known[0]) for _ in range(known[1])] + roles
    blocked = blocked_pairs(groups)
    if known is None and blocks == 1:
        assert blocked is None
    else:
        assert torch.equal(blocked, by_roles(roles, {("denoising", "matching")}))


def test_groups_see_others_by_name():
    groups = [group(2, "a", sees=("b",)), group(3, "b"), group(1, "c", sees=("a", "b"))]
    roles = [("a", 0)] * 2 + [("b", 0)] * 3 + [("c", 0)]
    assert torch.equal(blocked_pairs(groups), by_roles(roles, {("a", "b"), ("c", "a"), ("c", "b")}))


def test_groups_of_one_name_see_each_other_only_where_they_say_so():
    apart = [group(2), group(3)]
    assert blocked_pairs(apart).sum() == 2 * 2 * 3
    assert blocked_pairs([group(2, sees=("matching",)), group(3, sees=("matching",))]) is None


def test_a_group_is_one_to_one_and_in_one_piece_by_default():
    plain = group(3)
    assert (plain.size, plain.blocks, plain.name, plain.loss_suffix) == (3, 1, "matching", "{stage}")
    assert plain.assignment.queries_per_object == 1
    assert group(assignment=OneToMany(2)).assignment.queries_per_object == 2
