"""Small functions of tensors that several models share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Clamp of published models: the logit of a coordinate stays within about +-11.5.
LOGIT_EPS = 1e-5


def inverse_sigmoid(x: Tensor, eps: float = LOGIT_EPS) -> Tensor:
    """Logit of ``x`` in [0, 1], with ``x`` and ``1 - x`` clamped to at least ``eps``."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Values of ``maps`` at ``points``, bilinear, zero outside.

    Args:
        maps: (B, D, H, W).
        points: (B, K, 2) normalised (x, y); (0, 0) and (1, 1) are the outer corners of the map.

    Returns:
        (B, D, K).
    """
    grid = (2 * points - 1).to(maps.dtype)
    return F.grid_sample(maps, grid[:, :, None], align_corners=False).squeeze(3)


def sample_bool_masks(masks: Tensor, index: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of chosen boolean masks at points, without a float copy of any mask.

    Args:
        masks: (N, H, W) bool.
        index: (M,) which mask each row of ``points`` is for.
        points: (M, K, 2) normalised (x, y) as in :func:`sample_maps`.

    Returns:
        (M, K) float32 in [0, 1]; zero outside a mask's frame.
    """
    height, width = masks.shape[-2:]
    x = points[..., 0] * width - 0.5
    y = points[..., 1] * height - 0.5
    x0, y0 = x.floor(), y.floor()
    value = torch.zeros_like(x)
    offset = index[:, None] * (height * width)
    flat = masks.flatten()
    for column, row in ((x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1)):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
        cell = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        value += weight * (flat[offset + cell] & inside)
    return value
