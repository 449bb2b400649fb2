"""Multi-scale deformable attention in plain PyTorch, for any device and dtype; the standard for kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dtype_of_sums(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which deformable attention sums values of ``dtype``: float32 for half precision."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def multi_scale_deformable_attention_reference(
    value: Tensor, shapes: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
) -> Tensor:
    """See :func:`detrex.ops.multi_scale_deformable_attention`; level by level through ``grid_sample``."""
    batch, _, heads, dim = value.shape
    queries, sums = locations.shape[1], dtype_of_sums(value.dtype)
    grids = (2 * locations.to(sums) - 1).transpose(1, 2).flatten(0, 1).unbind(2)  # (BM, Q, P, 2) per level
    factors = weights.to(sums).transpose(1, 2).flatten(0, 1)[:, None].unbind(3)  # (BM, 1, Q, P) per level
    levels = value.to(sums).permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], 2)
    output = value.new_zeros(batch * heads, dim, queries, dtype=sums)
    for level, shape, grid, factor in zip(levels, shapes, grids, factors, strict=True):  # level (BM, D, hw)
        sampled = F.grid_sample(level.unflatten(2, shape), grid, padding_mode="zeros", align_corners=False)
        output = output + (sampled * factor).sum(-1)
    return output.view(batch, heads * dim, queries).transpose(1, 2).to(value.dtype)
