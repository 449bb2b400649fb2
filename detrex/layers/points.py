"""Reads maps and masks at points, and chooses points, with compiled kernels where they can run.

Points are normalised (x, y). Shape letters: B images, M maps or masks, D channels, K points, H and W cells.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detrex.layers.tracing import is_traced
from detrex.ops import points as kernels
from detrex.structures import PackedMasks
from detrex.structures.masks import BYTE_STEP


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Values of ``maps`` at ``points``, bilinear, zero outside.

    Args:
        maps: (B, D, H, W).
        points: (B, K, 2) normalised (x, y); (0, 0) and (1, 1) are the outer corners of the map.

    Returns:
        (B, D, K).
    """
    if not points.requires_grad and _kernels_run(maps, points):
        return kernels.read_maps(maps, points)
    grid = (2 * points).sub_(1).to(maps.dtype)
    return F.grid_sample(maps, grid[:, :, None], align_corners=False).squeeze(3)


def sample_bool_masks(masks: PackedMasks, index: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of chosen masks at points, without unpacking or copying any mask.

    Args:
        masks: N masks.
        index: (M,) which mask each row of ``points`` is for.
        points: (M, K, 2) normalised (x, y) as in :func:`sample_maps`.

    Returns:
        (M, K) float32 in [0, 1]; zero outside a mask's frame.
    """
    if masks.rows.is_cpu and _kernels_run(points):
        return kernels.read_packed_masks(masks.rows, masks.size, index, points)
    (height, width), (count, columns) = masks.size, masks.rows.shape[1:]
    # The border of zeros shifts pixels by one; everything further out is zero, too.
    x = (points[..., 0] * width + 0.5).clamp(0, width + 1)
    y = (points[..., 1] * height + 0.5).clamp(0, height + 1)
    x0, y0 = x.floor(), y.floor()
    byte = ((x0 + 0.5) / BYTE_STEP).floor()  # the half keeps quotients away from whole numbers
    shift = (byte * BYTE_STEP + 6 - x0).to(torch.uint8)
    place = y0.long().mul_(columns).add_(byte.long()).add_((index * (count * columns))[:, None])
    flat, along = masks.rows.flatten(), x - x0
    upper, lower = (
        torch.lerp((pair & 2).ne(0).float(), (pair & 1).float(), along)
        for pair in (flat[place] >> shift, flat[place + columns] >> shift)
    )
    return torch.lerp(upper, lower, y - y0)


@torch.no_grad()
def uncertain_points(maps: Tensor, candidates: int, keep: int, total: int) -> Tensor:
    """Random points with preference to where a map is near 0 (PointRend, arXiv 1912.08193).

    Args:
        maps: (M, H, W), such as mask logits.
        candidates: uniform points of each map that are looked at.
        keep: how many of them are returned: those with the smallest absolute values.
        total: K; ``total - keep`` other uniform points follow.

    Returns:
        (M, K, 2), float32.
    """
    if _kernels_run(maps):
        return kernels.uncertain_points(maps, candidates, keep, total)
    points = torch.rand(len(maps), candidates, 2, device=maps.device)
    certainty = sample_maps(maps[:, None], points).squeeze(1).abs()  # (M, candidates)
    best = _smallest(certainty, keep)
    chosen = points.gather(1, best[..., None].expand(-1, -1, 2))
    rest = torch.rand(len(maps), total - keep, 2, device=maps.device)
    return torch.cat([chosen, rest], 1)


def _smallest(values: Tensor, count: int) -> Tensor:
    """Indices (M, count) of the ``count`` smallest values in every row of (M, N), in any order."""
    if not values.is_cpu:
        return values.topk(count, dim=1, largest=False, sorted=False).indices
    # NumPy's selection has vector instructions and takes a fifth of the time.
    order = np.argpartition(values.float().numpy(), count - 1, axis=1)
    return torch.from_numpy(order[:, :count])


def _kernels_run(*tensors: Tensor) -> bool:
    return not is_traced() and kernels.points_kernels_run(*tensors)
