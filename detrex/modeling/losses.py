"""Losses per query or per matched pair; the criterion sums, weighs and normalises them.

Shape letters: B images, Q queries, C classes, M matched pairs, K points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class FocalClassLoss:
    """Sigmoid focal loss (arXiv 1708.02002) over all queries and classes, normalised by the objects.

    Args:
        weight: of this loss in the total.
        alpha, gamma: as in the paper.
    """

    no_object_class = False
    name = "loss_ce"

    def __init__(self, weight: float = 4.0, alpha: float = 0.25, gamma: float = 2.0):
        self.weight, self.alpha, self.gamma = weight, alpha, gamma

    def per_query(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        """Loss of every query (B, Q); the normaliser is the caller's.

        Args:
            logits: (B, Q, C).
            labels: (B, Q) int64, C for "no object".
        """
        positive = F.one_hot(labels, logits.shape[-1] + 1)[..., :-1].to(logits.dtype)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, positive, reduction="none")
        miss = (logits.sigmoid() - positive).abs()  # 1 - probability of the truth
        balance = self.alpha * positive + (1 - self.alpha) * (1 - positive)
        return (balance * cross_entropy * miss**self.gamma).sum(-1), None


class SoftmaxClassLoss:
    """Cross-entropy with a "no object" class, a mean weighted by class (DETR, arXiv 2005.12872).

    Args:
        weight: of this loss in the total.
        no_object_weight: of queries without object in the mean.
    """

    no_object_class = True
    name = "loss_ce"

    def __init__(self, weight: float = 4.0, no_object_weight: float = 0.1):
        self.weight, self.no_object_weight = weight, no_object_weight

    def per_query(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted loss of every query and its weight in the mean, both (B, Q).

        Args:
            logits: (B, Q, C + 1), "no object" last.
            labels: (B, Q) int64, C for "no object".
        """
        absent = labels == logits.shape[-1] - 1
        weight = torch.where(absent, self.no_object_weight, 1.0).to(logits.dtype)
        return weight * F.cross_entropy(logits.transpose(1, 2), labels, reduction="none"), weight


def mask_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean sigmoid cross-entropy over the points of a pair: (M, K) and (M, K) in [0, 1] to (M,)."""
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1)


def mask_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice loss over the points of a pair (V-Net, arXiv 1606.04797), smoothed by 1: (M, K) each, to (M,)."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * truth).sum(-1)
    return 1 - (overlap + 1) / (probability.sum(-1) + truth.sum(-1) + 1)
