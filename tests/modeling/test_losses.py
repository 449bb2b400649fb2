"""Losses of masks against torch and pencil."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from detrex.modeling.losses import mask_cross_entropy, mask_dice


def test_mask_losses_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])  # probabilities 1/2, 3/4; 1/2, 1/2
    truth = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    cross_entropy = [(math.log(2) + math.log(4)) / 2, math.log(2)]
    assert mask_cross_entropy(logits, truth).tolist() == pytest.approx(cross_entropy)
    dice = [1 - (2 * 0.5 + 1) / (1.25 + 1 + 1), 1 - 1 / (1 + 1)]
    assert mask_dice(logits, truth).tolist() == pytest.approx(dice)


def test_mask_losses_are_small_for_the_truth_and_large_for_its_opposite():
    truth = (torch.rand(4, 100) > 0.5).float()
    logits = 60 * (truth - 0.5)
    for loss in (mask_cross_entropy, mask_dice):
        assert loss(logits, truth).max() < 1e-3
        assert loss(-logits, truth).min() > 0.9


def test_gradients_of_mask_losses():
    logits = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    truth = torch.rand(3, 6, dtype=torch.float64)
    assert gradcheck(mask_cross_entropy, (logits, truth)) and gradcheck(mask_dice, (logits, truth))
