"""DETA (arXiv 2212.06137): assignment by overlap and suppression of duplicates, by hand."""

from pathlib import Path

import pytest
import torch
from torch import nn

from detrex.config import LazyConfig, instantiate
from detrex.modeling import Matcher, PredictionHeads, SigmoidScore, SupervisedPrediction
from detrex.modeling.results import Frame
from detrex.structures import BatchTargets, Prediction, Pyramid, Sample, Targets
from projects.deta.assignment import OverlapAssignment, SuppressedInstances, SuppressedProposals
from tests.config_files import config_of

MODEL = Path(__file__).resolve().parents[2] / "projects/deta/configs/models/deta_r50.py"


def pairs(assignment, *overlaps):
    """(query, object) pairs of every image, by IoUs (Q, N)."""
    found = assignment.pairs(overlaps, [overlap.shape[1] for overlap in overlaps])
    return [sorted(zip(query.tolist(), obj.tolist(), strict=True)) for query, obj in found]


def test_queries_that_overlap_enough_or_most_are_positive():
    overlap = torch.tensor(
        [
            [0.7, 0.1],  # enough
            [0.59, 0.0],  # not enough
            [0.6, 0.3],  # just enough
            [0.0, 0.4],  # most of all for the second object
            [0.0, 0.0],
        ]
    )
    assert pairs(OverlapAssignment(0.6, 100), overlap, overlap[:, :0]) == [[(0, 0), (2, 0), (3, 1)], []]


def test_ties_for_the_most_overlap_are_all_positive():
    overlap = torch.tensor([[0.3, 0.1], [0.3, 0.0], [0.2, 0.5], [0.0, 0.5]])
    found = pairs(OverlapAssignment(0.6, 100), overlap)
    assert found == [[(0, 0), (1, 0), (2, 1), (3, 1)]]


def test_the_query_with_most_overlap_belongs_to_the_object_that_it_overlaps_more():
    # Query 0 is the best of both objects; the second one keeps nothing.
    overlap = torch.tensor([[0.5, 0.4], [0.1, 0.1]])
    assert pairs(OverlapAssignment(0.6, 100), overlap) == [[(0, 0)]]


@pytest.mark.parametrize("most_per_object", [1, 2, 4])
def test_the_queries_of_an_object_are_those_that_overlap_it_most(most_per_object):
    overlap = torch.tensor([[0.7], [0.95], [0.8], [0.2], [0.9], [0.65]])
    found = pairs(OverlapAssignment(0.6, 100, most_per_object), overlap)
    assert found == [sorted((query, 0) for query in [1, 4, 2, 0][:most_per_object])]


def test_the_highest_overlaps_count_whoever_owns_the_query():
    # Object 1 owns queries 2 and 3 and so gets two queries: those that overlap it most, 1 and 2.
    overlap = torch.tensor([[0.9, 0.0], [0.9, 0.85], [0.1, 0.8], [0.2, 0.7]])
    found = pairs(OverlapAssignment(0.6, 100), overlap)
    assert found == [[(0, 0), (1, 0), (1, 1), (2, 1)]]


@pytest.mark.parametrize(("most_positive", "count"), [(3, 3), (0.5, 5), (0.25, 2)])
def test_at_most_so_many_positive_queries_count(most_positive, count):
    """Each query has an object of its own, so the pairs are those of the drawn queries."""
    torch.manual_seed(0)
    overlap = 0.8 * torch.eye(10)
    drawn = {tuple(pairs(OverlapAssignment(0.6, most_positive), overlap)[0]) for _ in range(100)}
    assert all(len(chosen) == count and all(query == obj for query, obj in chosen) for chosen in drawn)
    assert len(drawn) > 1 and {query for chosen in drawn for query, _ in chosen} == set(range(10))


def boxes_of_one_image():
    torch.manual_seed(0)
    return torch.cat([0.2 + 0.6 * torch.rand(1, 40, 2), 0.1 + 0.3 * torch.rand(1, 40, 2)], -1)


def test_the_drawn_queries_are_the_same_for_all_layers():
    reference = boxes_of_one_image()
    truth = reference[0, ::4]
    targets = BatchTargets(
        torch.arange(10), truth, None, torch.ones(10) > 0, torch.zeros(10, dtype=torch.int64), [10]
    )
    assignment = OverlapAssignment(0.6, 5)
    layers = [
        SupervisedPrediction(
            Prediction(torch.randn(1, 40, 10), torch.rand(1, 40, 4)), assignment, "", reference
        )
        for _ in range(3)
    ]
    drawn = set()
    for _ in range(5):
        matches = Matcher()(layers, None, targets)
        queries, objects = (
            [column[matches.stage == stage].tolist() for stage in range(3)]
            for column in (matches.query, matches.object)
        )
        rows = [list(zip(*row, strict=True)) for row in zip(queries, objects, strict=True)]
        assert rows[0] == rows[1] == rows[2] != []
        drawn.add(tuple(rows[0]))
    assert len(drawn) > 1  # every batch draws anew


def test_values_are_the_overlaps_of_the_boxes_that_queries_started_from():
    boxes = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.3, 0.2, 0.2, 0.2], [0.8, 0.8, 0.1, 0.1]])
    targets = BatchTargets(torch.tensor([1]), boxes[:1], None, torch.tensor([True]), torch.tensor([0]), [1])
    assignment = OverlapAssignment(0.3, 100, class_agnostic=True)
    assert assignment.class_agnostic and not assignment.needs_cost
    prediction = Prediction(torch.zeros(1, 3, 2), torch.rand(1, 3, 4))
    matches = Matcher()([SupervisedPrediction(prediction, assignment, "", boxes[None])], None, targets)
    assert matches.query.tolist() == [0, 1]  # IoUs of 1 and 1/3


def selected(scores, shapes, num_queries, boxes=None, **options):
    """The numbers of the tokens that become queries of one image, in their order."""
    queries = SuppressedProposals(num_queries, 8, (0.2,) * len(shapes), **options)
    memory = Pyramid(torch.zeros(1, len(scores), 8), tuple(shapes))
    boxes = torch.rand(1, len(scores), 4) if boxes is None else boxes
    return queries.select(Prediction(scores[None, :, None], boxes), memory)[0].tolist()


def apart(count):
    """Boxes that do not overlap."""
    return torch.tensor([[(i + 0.5) / count, 0.5, 0.5 / count, 0.5] for i in range(count)])[None]


def test_proposals_that_overlap_a_better_one_of_their_level_are_left_out():
    boxes = apart(8).clone()
    boxes[0, 1] = boxes[0, 0]  # on the first level, both
    boxes[0, 6] = boxes[0, 2]  # on another level
    scores = torch.tensor([3.0, 4.0, 2.0, 1.0, 0.5, 0.4, 5.0, 0.3])
    assert selected(scores, [(2, 2), (2, 2)], 6, boxes) == [6, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("nms_iou", "kept"), [(0.9, [0, 1]), (0.5, [0, 2])])
def test_how_much_proposals_may_overlap(nms_iou, kept):
    boxes = apart(3).clone()
    boxes[0, 1] = boxes[0, 0] * torch.tensor([1.0, 1.0, 0.8, 1.0])  # an IoU of 0.8
    assert selected(torch.tensor([3.0, 2.0, 1.0]), [(1, 3)], 2, boxes, nms_iou=nms_iou) == kept


def test_every_level_has_its_share_and_better_ones_fill_up():
    # Two of four queries for each level first, however much better the first level is.
    scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 2.0, 1.0])
    assert selected(scores, [(2, 2), (1, 2)], 4, apart(6)) == [0, 1, 4, 5]
    # A third of five is the best of the rest; the order is that of scores.
    assert selected(scores, [(2, 2), (1, 2)], 5, apart(6)) == [0, 1, 2, 4, 5]
    # The second level has one, so that the first fills the place.
    assert selected(scores[:5], [(2, 2), (1, 1)], 4, apart(5)) == [0, 1, 2, 4]


def test_only_the_best_of_a_level_take_part():
    scores = torch.tensor([9.0, 8.0, 7.0, 2.0, 1.0, 0.5])
    found = selected(scores, [(1, 3), (1, 3)], 4, apart(6), candidates_per_level=2)
    assert found == [0, 1, 3, 4]


def test_where_too_few_are_left_the_best_scores_count():
    boxes = apart(4)[:, :1].expand(-1, 4, -1)  # all at one place
    assert selected(torch.tensor([1.0, 3.0, 2.0, 0.0]), [(2, 2)], 3, boxes) == [1, 2, 0]


def test_contents_come_from_tokens_too():
    torch.manual_seed(0)
    queries = SuppressedProposals(3, 8, (0.2,))
    tokens, boxes = torch.randn(2, 3, 8), torch.rand(2, 3, 4)
    content, position = queries.start(tokens, boxes)
    nn.init.zeros_(queries.token_norm.weight)
    without, same = queries.start(tokens, boxes)
    assert torch.equal(position, same)
    normed = nn.functional.layer_norm(queries.token_projection(tokens), (8,))
    torch.testing.assert_close(content - without, normed)


def test_queries_start_from_the_boxes_of_their_proposals():
    memory = Pyramid(torch.randn(2, 9, 8), ((3, 3),))
    found = SuppressedProposals(4, 8, (0.2,))(memory, None, PredictionHeads(8, 5))
    (group,), (proposals,) = found.groups, found.supervised
    assert group.size == 4 and proposals.size == 9
    best = proposals.prediction.logits[..., 0].topk(4).indices  # none of them overlap
    for image in range(2):
        torch.testing.assert_close(group.reference[image, :, :2], memory.cell_centres()[0, best[image]])
    torch.testing.assert_close(proposals.reference, proposals.prediction.boxes)


FRAME = Frame(padded=(100, 100), image=(100, 100), output=(100, 100))


def instances(logits, boxes, **options):
    probabilities = SigmoidScore().probabilities(torch.tensor(logits)).independent
    return SuppressedInstances(**options)(probabilities, torch.tensor(boxes), None, FRAME, None)


BOXES = [[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.36], [0.2, 0.2, 0.2, 0.2]]  # an IoU of 0.9


def test_of_instances_of_a_class_that_overlap_the_best_stays():
    found = instances([[2.0, -1.0], [1.0, 0.0], [-2.0, -3.0]], BOXES)
    assert found.pred_classes.tolist() == [0, 1, 0, 1]
    scores = torch.tensor([2.0, 0.0, -2.0, -3.0]).sigmoid()
    torch.testing.assert_close(found.scores, scores)
    torch.testing.assert_close(found.pred_boxes, FRAME.boxes(torch.tensor(BOXES)[[0, 1, 2, 2]]))


def test_how_much_instances_may_overlap_and_how_many_there_are():
    logits = [[2.0], [1.0], [-2.0]]
    assert len(instances(logits, BOXES, nms_iou=0.95)) == 3
    assert len(instances(logits, BOXES)) == 2
    assert len(instances(logits, BOXES, nms_iou=0.95, max_detections=1)) == 1
    # Of the two candidates one is a duplicate.
    assert len(instances(logits, BOXES, candidates=2)) == 1
    assert len(instances(logits, BOXES, score_threshold=0.5)) == 1


def test_the_model_trains_and_detects():
    torch.manual_seed(0)
    overrides = [
        "model.num_classes=3",
        "model.backbone.name=test_resnet",
        "model.encoder={hidden_dim: 32, ffn_dim: 16, num_heads: 4, num_layers: 1}",
        "model.decoder.layers={ffn_dim: 16, num_heads: 4, num_layers: 2}",
        "model.decoder.query_init.num_queries=20",
    ]
    model = instantiate(LazyConfig.apply_overrides(config_of(MODEL), overrides).model).train()
    boxes = torch.tensor([[4.0, 4, 30, 40], [20, 8, 60, 50]])
    targets = Targets(torch.tensor([0, 2]), boxes, None, torch.ones(2) > 0)
    sample = Sample(image=torch.rand(3, 64, 64), targets=targets)
    losses = model([sample, sample])
    names = {f"loss_{k}{s}" for k in ("ce", "bbox", "giou") for s in ("", "_0", "_interm")}
    assert set(losses) == names
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        assert len(model.eval()([sample, sample])[0]["instances"]) > 0
