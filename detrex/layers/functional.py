"""Small functions of tensors that several models share."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from detrex.structures import PackedMasks
from detrex.structures.masks import BYTE_STEP

# Clamp of published models: the logit of a coordinate stays within about +-11.5.
LOGIT_EPS = 1e-5


def inverse_sigmoid(x: Tensor, eps: float = LOGIT_EPS) -> Tensor:
    """Logit of ``x`` in [0, 1], with ``x`` and ``1 - x`` clamped to at least ``eps``."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def at_least_single(x: Tensor) -> Tensor:
    """``x`` in float32 or better, for coordinates: half precision tells only 256 of them apart."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def at_most(limit: int, count: int) -> int:
    """The smaller of ``limit`` and ``count``, also where the count is not known while a model is exported."""
    return limit if statically_known_true(count >= limit) else cast(int, torch.sym_min(limit, count))


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Values of ``maps`` at ``points``, bilinear, zero outside.

    Args:
        maps: (B, D, H, W).
        points: (B, K, 2) normalised (x, y); (0, 0) and (1, 1) are the outer corners of the map.

    Returns:
        (B, D, K).
    """
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
    (height, width), (count, columns) = masks.size, masks.rows.shape[1:]
    # The border of zeros shifts pixels by one; whatever is further out is as zero as the border.
    x = (points[..., 0] * width + 0.5).clamp(0, width + 1)
    y = (points[..., 1] * height + 0.5).clamp(0, height + 1)
    x0, y0 = x.floor(), y.floor()
    byte = ((x0 + 0.5) / BYTE_STEP).floor()  # the half keeps the division off whole numbers
    shift = (byte * BYTE_STEP + 6 - x0).to(torch.uint8)
    place = y0.long().mul_(columns).add_(byte.long()).add_((index * (count * columns))[:, None])
    flat, along = masks.rows.flatten(), x - x0
    upper, lower = (
        torch.lerp((pair & 2).ne(0).float(), (pair & 1).float(), along)
        for pair in (flat[place] >> shift, flat[place + columns] >> shift)
    )
    return torch.lerp(upper, lower, y - y0)


def take_rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B, Q) of ``values`` (B, S, D): (B, Q, D)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def put_rows(values: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """``values`` (B, S, D) with other rows (B, Q, D) at ``index`` (B, Q)."""
    return values.scatter(1, index[..., None].expand_as(rows), rows)
