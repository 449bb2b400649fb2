"""Resizing as products of matrices: any size, in any runtime, with the weights of the predictor.

Linear resizing is the same for each row and each column, so it is one matrix from the left and one from the
right. Made of standard operators, these run wherever matrices are multiplied, while runtimes differ in which
modes of a ``Resize`` operator they know.

Shape letters: S cells of the source, T of the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

Length = int | Tensor
"""A number of cells: a whole number, or an int64 tensor without axes."""


def resize_weights(
    source: Length, target: Length, *, cells: tuple[int, int], antialias: bool, device: torch.device
) -> Tensor:
    """The matrix (T, S) that resizes ``source`` cells to ``target`` cells linearly, float32.

    It is what ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` does along an axis.

    Args:
        source: how many cells of the source there are.
        target: how many cells they become.
        cells: S and T, at least ``source`` and ``target``. Weights of cells beyond these are 0: they are
            padding.
        antialias: where cells become fewer, each is a mean over all that it covers.
        device: of the result.
    """
    columns, rows = (torch.arange(n, device=device) for n in cells)
    # Distance of centres in units of 1 / (2 * source * target) of the axis: whole numbers, so it is exact.
    distance = (2 * columns + 1) * target - (2 * rows[:, None] + 1) * source  # (T, S)
    reach = 2 * target * torch.ones(1, dtype=torch.float32, device=device)
    if antialias:
        reach = torch.maximum(reach, 2 * source * torch.ones_like(reach))
    weights = (1 - distance.abs() / reach).clamp(min=0) * (columns < source)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
    return weights * (rows[:, None] < target)


def fixed_point(weights: Tensor) -> Tensor:
    """Weights rounded as PyTorch rounds them to resize uint8: to the most bits with which 16 hold each."""
    bits = torch.log2((2**15 - 0.5) / weights.max()).floor()
    unit = torch.exp2(bits)
    return (weights * unit + 0.5).floor() / unit


def resize(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps (..., H, W) resized by the matrices of their rows (T, H) and columns (T', W): (..., T, T')."""
    return rows @ maps @ columns.T
