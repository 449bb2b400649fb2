"""Losses of matched pairs; the criterion sums, weighs and normalises them.

Shape letters: M matched pairs, K points.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mask_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean sigmoid cross-entropy over the points of a pair: (M, K) and (M, K) in [0, 1] to (M,)."""
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1)


def mask_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice loss over the points of a pair (V-Net, arXiv 1606.04797), smoothed by 1: (M, K) each, to (M,)."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * truth).sum(-1)  # (M,)
    return 1 - (overlap + 1) / (probability.sum(-1) + truth.sum(-1) + 1)
