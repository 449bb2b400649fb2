"""Prediction heads: their start, and which stage uses which."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detrex.modeling import PredictionHeads, SoftmaxScore
from detrex.modeling.heads import PROPOSALS

DIM = 8


def test_new_heads_say_one_percent_and_no_change_of_box():
    heads = PredictionHeads(DIM, 5, 16)
    logits, embed = heads.classify(0, torch.zeros(1, 2, DIM))
    torch.testing.assert_close(logits.sigmoid(), torch.full((1, 2, 5), 0.01))
    assert embed.shape == (1, 2, 16)
    assert not heads.box(0, torch.randn(1, 2, DIM)).any()
    assert PredictionHeads(DIM, 5, 16, SoftmaxScore()).sets[0].classes.out_features == 6


@pytest.mark.parametrize(
    ("options", "layers", "proposals", "count"),
    [
        (dict(), [0, 0, 0], 0, 1),
        (dict(own_proposals=True), [0, 0, 0], 1, 2),
        (dict(num_sets=3), [0, 1, 2], 2, 3),
        (dict(num_sets=3, own_proposals=True), [0, 1, 2], 3, 4),
    ],
    ids=str,
)
def test_which_set_a_stage_uses(options, layers, proposals, count):
    heads = PredictionHeads(DIM, 5, 16, **options)
    assert len(heads.sets) == count
    for number, head in enumerate(heads.sets):  # every head answers with its number
        for last in (head.classes, head.box.layers[-1], head.mask.layers[-1]):
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, number)
    features = torch.randn(1, 2, DIM)
    for stage, expected in [*enumerate(layers), (PROPOSALS, proposals)]:
        logits, embed = heads.classify(stage, features)
        assert (logits == expected).all() and (embed == expected).all()
        assert (heads.box(stage, features) == expected).all()
    assert (heads.proposal_logits(features) == proposals).all()


def test_classes_and_masks_may_be_normalised_once_more():
    once, again = (PredictionHeads(DIM, 5, 16, norm_again=again) for again in (False, True))
    again.load_state_dict(once.state_dict())
    features = 3 + 2 * torch.randn(1, 2, DIM)
    head, normed = once.sets[0], F.layer_norm(features, (DIM,))
    for heads, x in ((once, features), (again, normed)):
        logits, embed = heads.classify(0, features)
        torch.testing.assert_close(logits, head.classes(x))
        torch.testing.assert_close(embed, head.mask(x))
        torch.testing.assert_close(heads.box(0, features), head.box(features))
        # Proposals are chosen by logits without the further norm.
        torch.testing.assert_close(heads.proposal_logits(features), head.classes(features))


def test_without_masks_and_without_norm():
    heads = PredictionHeads(DIM, 5, norm=False)
    features = torch.randn(1, 2, DIM)
    assert heads.classify(0, features)[1] is None
    assert torch.equal(heads.norm(features), features)


def test_the_first_box_head_starts_with_a_size():
    heads = PredictionHeads(DIM, 5, num_sets=2, own_proposals=True, size_bias=-2.0)
    features = torch.randn(1, 2, DIM)
    for stage, size in ((0, -2.0), (1, 0.0), (PROPOSALS, 0.0)):
        assert heads.box(stage, features)[0].tolist() == [[0, 0, size, size]] * 2
