"""Resizes and compresses masks in one pass with the compiled CPU kernel, ``ops/masks_cpu.cpp``.

Shape letters: N masks, h and w cells, H and W pixels.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detrex.ops.dispatch import wanted_implementation
from detrex.ops.library import KernelError, KernelLibrary, MaskAxis, MaskResult, cpu_library


@dataclass(frozen=True)
class ResizedAxis:
    """How the cells of one axis become pixels: each pixel is a weighted sum of neighbouring cells.

    Attributes:
        first: (pixels,) int32, first cell of each pixel's sum; not decreasing, and all cells of a sum exist.
        weights: (pixels, taps) float32, weights of the cells from there on.
        pixels_of: (cells, 2) int32, first pixel that a cell has a part in, and the one after the last; the
            cell has no pixels if they are equal.
    """

    first: np.ndarray
    weights: np.ndarray
    pixels_of: np.ndarray

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: the arrays do not fit together.
        """
        pixels, taps = self.weights.shape
        cells = len(self.pixels_of)
        shapes = self.first.shape == (pixels,) and self.pixels_of.shape == (cells, 2)
        kinds = (np.int32, np.float32, np.int32)
        arrays = (self.first, self.weights, self.pixels_of)
        dense = all(a.dtype == kind and a.flags.c_contiguous for a, kind in zip(arrays, kinds, strict=True))
        if not (shapes and dense and taps > 0):
            raise ValueError("an axis has dense int32 first cells, float32 weights and int32 pixels of cells")
        inside = not pixels or (self.first.min() >= 0 and self.first.max() + taps <= cells)
        if not inside or (np.diff(self.first) < 0).any():
            raise ValueError(f"the cells of some pixels are not among 0 to {cells - 1}, or fall")
        if cells and not 0 <= self.pixels_of.min() <= self.pixels_of.max() <= pixels:
            raise ValueError(f"the pixels of some cells are not among 0 to {pixels - 1}")

    def structure(self) -> MaskAxis:
        """The argument of the kernel, which points to these arrays."""
        pixels, taps = self.weights.shape
        return MaskAxis(
            len(self.pixels_of),
            pixels,
            taps,
            *(a.ctypes.data for a in (self.first, self.weights, self.pixels_of)),
        )


@dataclass(frozen=True)
class CompressedMasks:
    """Masks as pycocotools' compressed runs.

    Attributes:
        counts: of each mask.
        areas: (N,) int64, in pixels.
        probabilities: (N,) float64, sums of the sigmoid of the logits inside.
    """

    counts: list[bytes]
    areas: np.ndarray
    probabilities: np.ndarray


def masks_kernel() -> KernelLibrary | None:
    """The compiled kernel; None if there is none, or if only PyTorch's code is wanted."""
    library = cpu_library()
    if isinstance(library, KernelError) or wanted_implementation() == "reference":
        return None
    return library


def compress_resized(
    library: KernelLibrary, masks: Tensor, rows: ResizedAxis, columns: ResizedAxis, signed_weights: bool
) -> CompressedMasks:
    """Compresses the masks of pixels whose resized logits are positive.

    Args:
        library: of :func:`masks_kernel`.
        masks: logits (N, h, w) float32 on the CPU.
        rows, columns: from h cells to H pixels, and from w to W.
        signed_weights: whether some weights are negative, so that pixels can be inside without such cells.

    Raises:
        ValueError: the masks have the wrong kind or size.
        MemoryError: if there is not enough memory.
    """
    cells = (len(rows.pixels_of), len(columns.pixels_of))
    if (
        masks.dim() != 3
        or tuple(masks.shape[1:]) != cells
        or masks.dtype != torch.float32
        or not masks.is_cpu
    ):
        raise ValueError(
            f"masks must be (N, {cells[0]}, {cells[1]}) float32 on the CPU, not {tuple(masks.shape)} "
            f"{masks.dtype} on {masks.device}"
        )
    masks = masks.contiguous()
    count = len(masks)
    results = (MaskResult * count)()
    axes = [ctypes.byref(axis.structure()) for axis in (rows, columns)]
    encode, release = library.handle.masks_encode, library.handle.masks_release
    try:
        if encode(
            masks.data_ptr(), count, *axes, signed_weights, results, torch.get_num_threads(), library.baseline
        ):
            raise MemoryError(f"{count} masks could not be compressed")
        counts = [ctypes.string_at(result.counts, result.length) for result in results]
        areas = np.array([result.area for result in results], np.int64)
        return CompressedMasks(
            counts, areas, np.array([result.probability for result in results], np.float64)
        )
    finally:
        release(results, count)
