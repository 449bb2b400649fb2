"""Learned queries: the same for every image, in groups or not."""

import pytest
import torch
from torch import nn

from detrex.modeling import LearnedBoxes, LearnedPositions, OneToMany, PredictionHeads
from detrex.structures import Pyramid

DIM = 64


def start(queries, batch=3):
    """The only group of a source."""
    memory = Pyramid(torch.randn(batch, 4, DIM), ((2, 2),))
    found = queries(memory, None, PredictionHeads(DIM, 5))
    assert found.supervised == []
    (group,) = found.groups
    return group


def test_learned_boxes_are_the_same_for_every_image_and_learn():
    queries = LearnedBoxes(7, DIM)
    group = start(queries)
    assert group.content.shape == (3, 7, DIM) and group.position is None
    assert torch.equal(group.content[0], group.content[2])
    torch.testing.assert_close(group.reference, queries.reference.weight.sigmoid().expand(3, -1, -1))
    (group.content.sum() + group.reference.sum()).backward()
    assert (queries.content.weight.grad == 3).all()
    slope = queries.reference.weight.sigmoid() * (1 - queries.reference.weight.sigmoid())
    torch.testing.assert_close(queries.reference.weight.grad, 3 * slope)


def test_learned_boxes_may_start_without_contents():
    queries = LearnedBoxes(7, DIM, learned_content=False)
    group = start(queries)
    assert group.content.shape == (3, 7, DIM) and not group.content.any()
    assert {name for name, _ in queries.named_parameters()} == {"reference.weight"}


def test_the_assignment_of_learned_boxes():
    assert start(LearnedBoxes(7, DIM)).assignment.queries_per_object == 1
    assert start(LearnedBoxes(7, DIM, assignment=OneToMany(3))).assignment.queries_per_object == 3


@pytest.mark.parametrize("learned_content", [False, True])
def test_learned_positions(learned_content):
    point = nn.Linear(DIM, 2)
    queries = LearnedPositions(7, DIM, learned_content, point)
    group = start(queries)
    position = queries.position.weight
    for image in range(3):
        assert torch.equal(group.position[image], position)
        place = (position @ point.weight.T + point.bias).sigmoid()
        torch.testing.assert_close(group.reference[image], place)
        content = queries.content.weight if learned_content else torch.zeros(7, DIM)
        assert torch.equal(group.content[image], content)
    assert start(LearnedPositions(7, DIM)).reference is None


@pytest.mark.parametrize("see_other_groups", [False, True])
def test_training_has_all_groups_and_evaluation_the_first(see_other_groups):
    point = nn.Linear(DIM, 2)
    queries = LearnedPositions(4, DIM, True, point, num_groups=3, see_other_groups=see_other_groups)
    training, evaluation = start(queries.train(), 2), start(queries.eval(), 2)
    assert (training.size, training.blocks) == (12, 1 if see_other_groups else 3)
    assert (evaluation.size, evaluation.blocks) == (4, 1)
    # Groups are matched by themselves, whether or not they see one another.
    assert training.assignment.blocks == 3 and evaluation.assignment.blocks == 1
    for field in ("content", "position", "reference"):
        whole, first = getattr(training, field), getattr(evaluation, field)
        assert whole.shape[:2] == (2, 12) and first.shape[:2] == (2, 4)
        torch.testing.assert_close(first, whole[:, :4])
