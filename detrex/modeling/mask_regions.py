"""Predicted masks at output size, computed only where a mask can be inside.

Resizing is linear, and the same for each row and each column. Its two steps (to the padded input, then from
the image within it to the output) together multiply the mask by one matrix from the left and one from the
right, so any range of rows and columns can be computed alone. A pixel is inside if its logit is positive.
As the logit is a mean of the cells around the pixel, a mask reaches only as far as its positive cells do.
(Bicubic resizing has negative weights: there, a region is the whole mask.)

Shape letters: h and w cells of predicted masks, H and W output pixels, R and C rows and columns of a region.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detrex.layers import is_traced
from detrex.ops.masks import ResizedAxis, compress_resized, masks_kernel
from detrex.runtime.chunking import FLOAT_BYTES, items_in_cache
from detrex.structures.rle import rle_of_runs

Interpolation = Literal["bilinear", "bicubic"]


def resized(maps: Tensor, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
    """Resizes maps (1, N, h, w) to (height, width) ``size``; bicubic resizing is antialiased."""
    antialias = interpolation == "bicubic"
    return F.interpolate(maps, size, mode=interpolation, align_corners=False, antialias=antialias)


@dataclass
class _Axis:
    """How cells of one axis become pixels.

    Attributes:
        weights: (pixels, cells); rows sum to 1.
        pixels_of: (cells, 2) first pixel that a cell has a part in, and the one after the last; the cell has
            no pixels if the two are equal.
        cells_of: (pixels, 2) first cell that a pixel needs, and the one after the last.
    """

    weights: Tensor
    pixels_of: list[list[int]]
    cells_of: list[list[int]]

    @classmethod
    def resizing(
        cls,
        cells: int,
        padded: int,
        image: int,
        output: int,
        device: torch.device,
        interpolation: Interpolation = "bilinear",
    ) -> _Axis:
        """Resizes ``cells`` to ``padded`` pixels, crops these to ``image`` and resizes them to ``output``."""
        values = torch.eye(cells, device=device)[None, None]  # (1, 1, cells, cells), resized along the last
        values = resized(values, (cells, padded))[..., :image]
        if image != output:
            values = resized(values, (cells, output), interpolation)
        weights = values[0, 0].T.contiguous()  # (pixels, cells)
        used = weights != 0
        return cls(weights, _first_and_end(used.T).tolist(), _first_and_end(used).tolist())

    def for_kernel(self) -> ResizedAxis:
        """The axis as :func:`~detrex.ops.masks.compress_resized` takes it: only the weights that count."""
        weights = self.weights.numpy()  # (pixels, cells)
        spans = np.array(self.cells_of, np.int32).reshape(-1, 2)
        # First cells must not decrease, but weights of bicubic resizing can be zero by chance.
        first = np.minimum.accumulate(spans[::-1, 0])[::-1]
        taps = int((spans[:, 1] - first).max(initial=1))
        first = np.minimum(first, weights.shape[1] - taps)
        used = np.take_along_axis(weights, first[:, None] + np.arange(taps), 1)  # (pixels, taps)
        return ResizedAxis(first, used, np.array(self.pixels_of, np.int32).reshape(-1, 2))

    def covered(self, first: int, last: int) -> tuple[slice, slice]:
        """Pixels that cells from ``first`` to ``last`` have a part in, and all cells those pixels need."""
        # Cells beyond the image have no pixels.
        spans = [span for span in self.pixels_of[first : last + 1] if span[0] < span[1]]
        if not spans:
            return slice(0, 0), slice(0, 0)
        begin, end = spans[0][0], spans[-1][1]
        return slice(begin, end), slice(self.cells_of[begin][0], self.cells_of[end - 1][1])


def _first_and_end(used: Tensor) -> Tensor:
    """First used column of each row, and one after the last, (N, 2); equal if no column is used."""
    first = used.int().argmax(1)  # (N,)
    last = used.shape[1] - used.flip(1).int().argmax(1)
    return torch.stack([first, torch.where(used.any(1), last, first)], 1)


class MaskResize:
    """Resizes masks of one image.

    Args:
        cells: (h, w) of predicted masks.
        padded, image, output: (height, width) of the padded input that the cells cover, of the image within
            it, and of the result.
        device: of the masks.
        interpolation: from the image to the output.
    """

    def __init__(
        self,
        cells: tuple[int, int],
        padded: tuple[int, int],
        image: tuple[int, int],
        output: tuple[int, int],
        device: torch.device,
        interpolation: Interpolation = "bilinear",
    ):
        self.output, self.whole = output, interpolation == "bicubic" and image != output
        self._widths, self._interpolation = (padded[1], image[1], output[1]), interpolation
        self._rows, self._columns = (
            _Axis.resizing(*sizes, device, interpolation)
            for sizes in zip(cells, padded, image, output, strict=True)
        )

    def strips(self, masks: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yields rows of the output from top to bottom, with the logits (N, rows, W) of all masks there.

        Args:
            masks: logits (N, h, w).
        """
        height, width = self.output
        padded, image, _ = self._widths
        step = items_in_cache(FLOAT_BYTES * max(1, len(masks)) * width, masks.device)
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            needed = self._rows.cells_of[rows]
            cells = slice(min(first for first, _ in needed), max(end for _, end in needed))
            values = self._rows.weights[rows, cells] @ masks[:, cells]  # (N, rows, w)
            values = resized(values[None], (values.shape[1], padded))[..., :image]
            if image != width:
                values = resized(values, (values.shape[2], width), self._interpolation)
            yield rows, values[0]

    def encode(self, masks: Tensor) -> tuple[list[dict[str, Any]], Tensor]:
        """The run-length encoding of each mask, and its mean probability inside (N,), 0 if it is empty.

        The device is synchronised a few times in all, not for every mask. On CPUs, a compiled kernel is used
        if there is one; its results differ by rounding.

        Args:
            masks: logits (N, h, w) float32.
        """
        kernel = masks_kernel() if masks.is_cpu and not is_traced() else None
        if kernel is not None:
            axes = self._rows.for_kernel(), self._columns.for_kernel()
            masks_found = compress_resized(kernel, masks, *axes, self.whole)
            compressed = [{"size": list(self.output), "counts": counts} for counts in masks_found.counts]
            quality = masks_found.probabilities / (masks_found.areas + 1e-6)
            return compressed, torch.from_numpy(quality).to(masks)
        rles: list[dict[str, Any]] = []
        areas: list[int] = []
        totals: list[Tensor] = [masks.new_zeros(0)]
        for group in self._groups(self._regions(masks), masks.device):
            found = [self._inside(masks[region.index], region) for region in group]
            totals.append(torch.stack([total for _, total in found]))
            for region, places in zip(group, _changes([changes for changes, _ in found]), strict=True):
                bounds = _bounds(places, region, self.output[0])
                areas.append(int((bounds[1::2] - bounds[::2]).sum()))
                rles.append(rle_of_runs(bounds, self.output))
        area = torch.tensor(areas, dtype=masks.dtype).to(masks.device)
        return rles, torch.cat(totals) / (area + 1e-6)

    def _regions(self, masks: Tensor) -> list[_Region]:
        """The region of each mask, outside of which it is empty."""
        if self.whole:
            height, width = masks.shape[1:]
            bounds = [[0, height, 0, width]] * len(masks)
        else:
            positive = masks > 0  # (N, h, w)
            ranges = _first_and_end(positive.any(2)), _first_and_end(positive.any(1))
            bounds = torch.cat(ranges, 1).tolist()  # (N, 4)
        return [
            _Region(i, *self._rows.covered(top, bottom - 1), *self._columns.covered(left, right - 1))
            for i, (top, bottom, left, right) in enumerate(bounds)
        ]

    @staticmethod
    def _groups(regions: list[_Region], device: torch.device) -> Iterator[list[_Region]]:
        """Groups of successive regions, limited by the number of pixels that may wait for encoding."""
        limit, count = 4 * items_in_cache(1, device), 0
        group: list[_Region] = []
        for region in regions:
            if group and count + region.framed > limit:
                yield group
                count, group = 0, []
            group.append(region)
            count += region.framed
        if group:
            yield group

    def _inside(self, mask: Tensor, region: _Region) -> tuple[Tensor, Tensor]:
        """Begins and ends of the runs of a mask (h, w), and the sum of its probabilities inside, a scalar.

        Returns:
            Changes (C * (R + 1),) bool from each pixel to the next, down the columns. Each column is preceded
            by a pixel outside, so that every run ends in its own column.
        """
        cells = mask[region.cells_y, region.cells_x]  # (h, w) of the region
        height, width = region.height, region.width
        framed = cells.new_zeros((width, height + 1), dtype=torch.bool)
        total = cells.new_zeros(())
        rows = self._rows.weights[region.y, region.cells_y].T  # (h, R)
        step = items_in_cache(FLOAT_BYTES * max(1, height), cells.device)
        for first in range(0, width if height else 0, step):
            part = slice(region.x.start + first, min(region.x.start + first + step, region.x.stop))
            # Run-length encoding goes down the columns.
            logits = self._columns.weights[part, region.cells_x] @ cells.T @ rows  # (C, R)
            inside = framed[first : first + step, 1:]
            torch.gt(logits, 0, out=inside)
            total += 0.5 * inside.count_nonzero() + logits.clamp_(0).sigmoid_().sub_(0.5).sum()
        flat = F.pad(framed.flatten(), (0, 1))  # (C * (R + 1) + 1,)
        return flat[1:] ^ flat[:-1], total


@dataclass
class _Region:
    """A rectangle outside of which a mask is empty.

    Attributes:
        index: of the mask.
        y, x: rows and columns of output pixels.
        cells_y, cells_x: rows and columns of the cells that these pixels need.
    """

    index: int
    y: slice
    cells_y: slice
    x: slice
    cells_x: slice

    @property
    def height(self) -> int:
        return self.y.stop - self.y.start

    @property
    def width(self) -> int:
        return self.x.stop - self.x.start

    @property
    def framed(self) -> int:
        """Number of pixels, with one more in each column."""
        return self.width * (self.height + 1)


def _changes(values: list[Tensor]) -> list[np.ndarray]:
    """Indices of the true entries of each vector, computed for all together."""
    ends = np.cumsum([len(value) for value in values])
    places = torch.cat(values).nonzero().squeeze(1).cpu().numpy()
    parts = np.split(places, np.searchsorted(places, ends[:-1]))
    return [part - begin for part, begin in zip(parts, [0, *ends[:-1]], strict=True)]


def _bounds(changes: np.ndarray, region: _Region, height: int) -> np.ndarray:
    """Begin and end of every run in a mask of ``height`` rows, from the changes in a region."""
    pixels = changes + 1
    is_end = np.arange(len(pixels)) % 2
    pixels = pixels - is_end  # for ends, the last pixel of the run
    column, row = np.divmod(pixels, region.height + 1)
    return (region.x.start + column) * height + region.y.start + row - 1 + is_end
