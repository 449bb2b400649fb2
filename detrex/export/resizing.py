"""Resizes by products of matrices, to any size, in any runtime, with the predictor's weights.

Linear resizing is the same for each row and each column, so it is a product with one matrix from the left and
one from the right. These standard operators run in every runtime, while runtimes differ in the modes of the
``Resize`` operator that they support.

Shape letters: S cells of the source, T of the target.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Length = int | Tensor
"""A number of cells: an int, or an int64 tensor without axes."""


def resize_weights(
    source: Length, target: Length, *, cells: tuple[int, int], antialias: bool, device: torch.device
) -> Tensor:
    """The matrix (T, S) that resizes ``source`` cells to ``target`` cells linearly, float32.

    It equals ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` along an axis.

    Args:
        source: number of cells in the source.
        target: number of cells in the target.
        cells: S and T, at least ``source`` and ``target``. Further cells are padding, whose weights are 0.
        antialias: if there are fewer target cells, each is a mean over all source cells that it covers.
        device: of the result.
    """
    columns, rows = (torch.arange(n, device=device) for n in cells)
    # Distance of centres in units of 1 / (2 * source * target) of the axis: integers, so it is exact.
    distance = (2 * columns + 1) * target - (2 * rows[:, None] + 1) * source  # (T, S)
    reach = 2 * target * torch.ones(1, dtype=torch.float32, device=device)
    if antialias:
        reach = torch.maximum(reach, 2 * source * torch.ones_like(reach))
    weights = (1 - distance.abs() / reach).clamp(min=0) * (columns < source)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
    return weights * (rows[:, None] < target)


def fixed_point(weights: Tensor) -> Tensor:
    """Weights rounded like PyTorch's for resizing uint8: with as many bits as fit each into 16 bits."""
    # No quotient by the maximum: OpenVINO 2026.4 joins a maximum and 1 / x to one operator, which gives x.
    bits = (math.log2(2**15 - 0.5) - torch.log2(weights.max())).floor()
    unit = torch.exp2(bits)
    return (weights * unit + 0.5).floor() / unit


def resize(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Resizes maps (..., H, W) with the matrices of rows (T, H) and columns (T', W): (..., T, T')."""
    return rows @ maps @ columns.T
