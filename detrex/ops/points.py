"""Reads maps and masks at points with the compiled kernels of ``ops/points_cpu.cpp``, for mask losses.

They take float32 tensors on CPUs. Callers ask :func:`points_kernels_run` first, and have PyTorch code for
everything else.

Shape letters: M maps or masks, D channels, K points, H and W cells of a map or pixels of a mask, N packed
masks, C bytes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from detrex.ops.dispatch import wanted_implementation
from detrex.ops.library import KernelError, cpu_library

# Cells are numbered with 32 bits, and so are random numbers of a map.
MOST_CELLS = MOST_CANDIDATES = 2**30


def points_kernels_run(*tensors: Tensor) -> bool:
    """Whether the kernels are built and wanted, and take maps and points like these: float32 on a CPU."""
    return (
        all(t.is_cpu and t.dtype == torch.float32 for t in tensors)
        and wanted_implementation() != "reference"
        and not isinstance(cpu_library(), KernelError)
    )


def uncertain_points(maps: Tensor, candidates: int, keep: int, total: int) -> Tensor:
    """Random points with a preference for places where maps are near 0 (PointRend, arXiv 1912.08193).

    Random numbers come from the kernel's generator, whose seeds PyTorch draws.

    Args:
        maps: (M, H, W), without gradient.
        candidates: uniform points of each map that are looked at.
        keep: how many of them are returned: those with the smallest absolute values.
        total: K; ``total - keep`` other uniform points follow.

    Returns:
        (M, K, 2) normalised (x, y).

    Raises:
        ValueError: ``keep`` is below 0 or above ``candidates`` or ``total``, or a size is too large.
    """
    if not 0 <= keep <= min(candidates, total) or max(candidates, total) > MOST_CANDIDATES:
        raise ValueError(f"{keep} of {candidates} candidates cannot be among {total} points")
    _check_cells(*maps.shape[1:])
    points = maps.new_empty(len(maps), total, 2)
    seeds = torch.randint(2**63 - 1, (len(maps),), device="cpu")
    _call("uncertain", maps.contiguous(), *maps.shape, seeds, candidates, keep, total, points)
    return points


def read_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of (M, D, H, W) at points (M, K, 2), zero outside: (M, D, K). Points get no gradient.

    Raises:
        ValueError: shapes do not fit together, or a map is too large.
    """
    if points.shape != (len(maps), points.shape[1], 2):
        raise ValueError(f"points must be {(len(maps), 'K', 2)}, not {tuple(points.shape)}")
    _check_cells(*maps.shape[2:])
    values: Tensor = _Read.apply(maps.contiguous(), points.detach().contiguous())
    return values


def read_packed_masks(rows: Tensor, size: tuple[int, int], index: Tensor, points: Tensor) -> Tensor:
    """Bilinear values in [0, 1] of masks at points, zero outside: (M, K).

    Args:
        rows: (N, H + 3, C) uint8, from :class:`~detrex.structures.PackedMasks`.
        size: (H, W).
        index: (M,) int64, which mask each row of points is for.
        points: (M, K, 2) normalised (x, y).

    Raises:
        ValueError: shapes do not fit together, or a mask is too large.
        IndexError: there is no mask with such an index.
    """
    (height, width), (count, lines, columns) = size, rows.shape
    if lines != height + 3 or 7 * columns < width + 2 or points.shape != (len(index), points.shape[1], 2):
        raise ValueError(
            f"rows {tuple(rows.shape)} are no masks of {size}, or points {tuple(points.shape)} not for "
            f"{len(index)} of them"
        )
    _check_cells(height, width)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise IndexError(f"masks {int(index.min())} to {int(index.max())} of {count}")
    values = points.new_empty(points.shape[:2])
    inputs = rows.contiguous(), index.contiguous()
    kept = points.contiguous()
    _call("read_masks", *inputs, len(index), height, width, columns, kept, points.shape[1], values)
    return values


class _Read(torch.autograd.Function):
    """Reads values, with the gradient of the maps."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, points: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        ctx.size = maps.shape[1:]
        values = maps.new_empty(*maps.shape[:2], points.shape[1])
        _call("read", maps, *maps.shape, points, points.shape[1], values)
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (points,) = ctx.saved_tensors
        maps_grad = grad.new_empty(len(points), *ctx.size)
        grad = grad.contiguous()
        _call("read_backward", points, *maps_grad.shape, grad, points.shape[1], maps_grad)
        return maps_grad, None


def _check_cells(height: int, width: int) -> None:
    """Checks that maps are not too large; the kernels add a border to them."""
    if (cells := math.prod((height + 3, width + 3))) > MOST_CELLS:
        raise ValueError(f"a map of {height} x {width} has {cells} cells with its border; {MOST_CELLS} fit")


def _call(name: str, *arguments: Tensor | int) -> None:
    """Runs ``points_<name>`` on dense tensors, which stay alive until it returns."""
    library = cpu_library()
    if isinstance(library, KernelError):
        raise KernelError(str(library))
    function = getattr(library.handle, f"points_{name}")
    values = (a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
    function(*values, torch.get_num_threads(), library.baseline)
