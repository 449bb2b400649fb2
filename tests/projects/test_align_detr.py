"""Align-DETR (arXiv 2304.07527): the class loss, the weights of pairs and mixed matching, by hand."""

import math
from pathlib import Path

import pytest
import torch

from detrex.config import LazyConfig, instantiate
from detrex.modeling import ClassTargets, Matcher, OneToMany, SetCriterion, SupervisedPrediction
from detrex.structures import BatchTargets, Prediction, Sample, Targets
from projects.align_detr.align import AlignedScore, MixedMatching
from tests.config_files import config_of

MODEL = Path(__file__).resolve().parents[2] / "projects/align_detr/configs/models/align_detr_r50.py"


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def alignment(logit, iou):
    """The paper's s^a u^(1 - a), at least 0.01."""
    return max(sigmoid(logit) ** 0.25 * iou**0.75, 0.01)


def test_weights_fall_with_the_rank_of_the_alignment():
    logits = torch.tensor([0.0, 2.0, -1.0, 3.0, 1.0, 0.5])
    quality = torch.tensor([0.9, 0.2, 0.95, 0.0, 0.6, 0.61])
    owner = torch.tensor([7, 7, 7, 2, 2, 9])
    # Object 7: 0.78 for pair 0, 0.29 for pair 1, 0.70 for pair 2; object 2: 0.01 and 0.63.
    ranks = [0, 2, 1, 1, 0, 0]
    found = AlignedScore().pair_weights(logits, quality, owner)
    torch.testing.assert_close(found, torch.tensor([math.exp(-rank / 1.5) for rank in ranks]))
    slower = AlignedScore(rank_decay=3.0).pair_weights(logits, quality, owner)
    torch.testing.assert_close(slower, torch.tensor([math.exp(-rank / 3) for rank in ranks]))
    assert AlignedScore().pair_weights(*(t[:0] for t in (logits, quality, owner))).shape == (0,)


def test_the_probabilitys_share_of_the_alignment():
    logits, quality, owner = torch.tensor([3.0, -3.0]), torch.tensor([0.3, 0.6]), torch.tensor([0, 0])
    by_box, by_class = (AlignedScore(share).pair_weights(logits, quality, owner) for share in (0.0, 1.0))
    assert by_box.argmax() == 1 and by_class.argmax() == 0


def test_the_class_loss_by_hand():
    logits = torch.tensor([[[0.5, -1.0], [2.0, -2.0], [0.0, 1.0]]], requires_grad=True)
    labels = torch.tensor([[0, 1, 2]])  # the last query has no object
    quality, weight = torch.tensor([[0.8, 0.0, 0.0]]), torch.tensor([[1.0, 0.5, 0.0]])
    loss, mean_weight = AlignedScore().loss(logits, ClassTargets(labels, quality, weight))
    assert mean_weight is None

    def positive(logit, iou, pair_weight):
        wanted, p = alignment(logit, iou) * pair_weight, sigmoid(logit)
        return -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)

    def negative(logit):
        return -(sigmoid(logit) ** 2) * math.log(1 - sigmoid(logit))

    expected = [
        positive(0.5, 0.8, 1.0) + negative(-1.0),
        negative(2.0) + positive(-2.0, 0.0, 0.5),
        negative(0.0) + negative(1.0),
    ]
    torch.testing.assert_close(loss, torch.tensor([expected]))
    # What is wanted is no function of the logits: the gradient is that of a cross-entropy.
    loss[0, 0].backward()
    assert logits.grad[0, 0, 0].item() == pytest.approx(sigmoid(0.5) - alignment(0.5, 0.8), abs=1e-6)


def chosen(assignment, *costs):
    """The pairs of every image, as sets of (query, object)."""
    found = assignment.pairs(costs, [cost.shape[1] for cost in costs])
    return [set(zip(query.tolist(), obj.tolist(), strict=True)) for query, obj in found]


def as_one_to_many(copies, cost):
    return chosen(OneToMany(copies), cost)[0]


def test_mixed_matching_gives_objects_several_queries_and_one_in_the_last_layer():
    mixed, cost = MixedMatching(copies=3), torch.randn(12, 2)
    for stage in range(3):
        pairs = chosen(mixed.at_stage(stage, 3), cost)[0]
        assert pairs == as_one_to_many(1 if stage == 2 else 3, cost)
        assert len(pairs) == (2 if stage == 2 else 6)
        # Losses are divided by the number of objects.
        assert mixed.at_stage(stage, 3).queries_per_object == 1
    two = MixedMatching(copies=2, last_copies=2)
    assert chosen(two.at_stage(2, 3), cost)[0] == as_one_to_many(2, cost)


def test_at_most_half_of_the_queries_are_given_away_from_then_on():
    crowded, sparse = torch.randn(12, 3), torch.randn(12, 1)
    mixed = MixedMatching(copies=4)
    assert chosen(mixed, sparse, crowded) == [as_one_to_many(4, sparse), as_one_to_many(2, crowded)]
    # The smaller number stays for the later images of the batch, and not for the next batch.
    assert chosen(mixed, crowded, sparse) == [as_one_to_many(2, crowded), as_one_to_many(2, sparse)]
    assert chosen(mixed, sparse) == [as_one_to_many(4, sparse)]
    assert chosen(mixed, torch.randn(12, 0), sparse)[1] == as_one_to_many(4, sparse)


def test_every_object_has_a_query_where_there_are_many():
    cost = torch.randn(4, 3)
    assert chosen(MixedMatching(copies=2), cost) == [as_one_to_many(1, cost)]


def test_weights_of_pairs_weigh_all_losses():
    """Two queries answer for one object: the second best counts exp(-1 / 1.5)."""
    targets = BatchTargets(
        torch.tensor([0]),
        torch.tensor([[0.5, 0.5, 0.4, 0.4]]),
        None,
        torch.tensor([True]),
        torch.tensor([0]),
        [1],
    )
    boxes = [[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.2], [0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]]
    prediction = Prediction(torch.zeros(1, 4, 1), torch.tensor([boxes]))
    score = AlignedScore()
    criterion = SetCriterion(Matcher(score), score)
    losses = criterion([SupervisedPrediction(prediction, MixedMatching(copies=2))], None, targets)
    # IoUs of 1 and 1/2; the second box is 0.2 away.
    second = math.exp(-1 / 1.5)
    assert losses["loss_bbox"].item() == pytest.approx(5 * second * 0.2, rel=1e-4)
    assert losses["loss_giou"].item() == pytest.approx(2 * second * 0.5, rel=1e-4)
    pair = math.log(2)  # the cross-entropy of probability 1/2, whatever is wanted
    assert losses["loss_ce"].item() == pytest.approx(2 * pair + 2 * 0.25 * math.log(2), rel=1e-4)


def test_the_model_trains():
    overrides = [
        "model.num_classes=3",
        "model.backbone.name=test_resnet",
        "model.encoder={hidden_dim: 32, ffn_dim: 16, num_heads: 4, num_layers: 1}",
        "model.decoder.layers={ffn_dim: 16, num_heads: 4, num_layers: 2}",
        "model.decoder.query_init.num_queries=8",
        "model.denoising.num_queries=4",
    ]
    model = instantiate(LazyConfig.apply_overrides(config_of(MODEL), overrides).model).train()
    boxes = torch.tensor([[4.0, 4, 30, 40], [20, 8, 60, 50]])
    targets = Targets(torch.tensor([0, 2]), boxes, None, torch.ones(2) > 0)
    losses = model([Sample(image=torch.rand(3, 64, 64), targets=targets)] * 2)
    names = {f"loss_{k}{s}" for k in ("ce", "bbox", "giou") for s in ("", "_0", "_interm", "_dn", "_dn_0")}
    assert set(losses) == names
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
