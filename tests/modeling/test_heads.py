"""Prediction heads: their start, and which stage uses which."""

import torch

from detrex.modeling import PredictionHeads

DIM = 8


def test_new_heads_say_one_percent_and_no_change_of_box():
    heads = PredictionHeads(DIM, 5, 16)
    logits, embed = heads.classify(0, torch.zeros(1, 2, DIM))
    torch.testing.assert_close(logits.sigmoid(), torch.full((1, 2, 5), 0.01))
    assert embed.shape == (1, 2, 16)
    assert not heads.box(0, torch.randn(1, 2, DIM)).any()
    assert PredictionHeads(DIM, 5, 16, no_object_class=True).sets[0].classes.out_features == 6
