"""Losses against torchvision, torch and pencil."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from torchvision.ops import sigmoid_focal_loss

from detrex.modeling import FocalClassLoss, SoftmaxClassLoss
from detrex.modeling.losses import mask_cross_entropy, mask_dice


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 1.0), (0.5, 0.0)])
def test_focal_loss_is_torchvisions(alpha, gamma):
    logits = 3 * torch.randn(2, 7, 5)
    labels = torch.randint(0, 6, (2, 7))
    truth = torch.zeros(2, 7, 5)
    for b, q in ((b, q) for b in range(2) for q in range(7)):
        if labels[b, q] < 5:
            truth[b, q, labels[b, q]] = 1
    ours, weight = FocalClassLoss(alpha=alpha, gamma=gamma).per_query(logits, labels)
    assert weight is None
    torch.testing.assert_close(ours, sigmoid_focal_loss(logits, truth, alpha, gamma).sum(-1))


def test_focal_loss_has_finite_gradients_at_extreme_logits():
    logits = torch.tensor([[[100.0, -100, 0], [-100, 100, 0]]], requires_grad=True)
    FocalClassLoss().per_query(logits, torch.tensor([[0, 0]]))[0].sum().backward()
    assert logits.grad.isfinite().all()


def test_gradient_of_the_focal_loss():
    labels = torch.tensor([[0, 2, 3]])
    logits = torch.randn(1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: FocalClassLoss().per_query(x, labels)[0], (logits,))


def test_softmax_loss_is_torchs_weighted_mean():
    logits, labels = torch.randn(2, 7, 6), torch.randint(0, 6, (2, 7))
    labels[0, :3] = 5
    loss, weight = SoftmaxClassLoss(no_object_weight=0.1).per_query(logits, labels)
    expected = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), weight=torch.tensor([1, 1, 1, 1, 1, 0.1])
    )
    torch.testing.assert_close(loss.sum() / weight.sum(), expected)


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
