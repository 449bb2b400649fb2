"""Predicted masks at output size, computed only where a mask can be inside.

Resizing is linear, and the same for each row and each column. Both steps of it (to the padded input, then
from the image's part of it to the output) together are a product of one matrix from the left and one from the
right, of which any range of rows and columns can be computed alone. A pixel is inside where its logit is
positive, and it is a mean of the cells around it: so a mask reaches only as far as its positive cells do.
(Not so with bicubic resizing, which takes some cells negative: then a region is the whole mask.)

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

from detrex.runtime.chunking import FLOAT_BYTES, items_in_cache
from detrex.structures.rle import rle_of_runs

Interpolation = Literal["bilinear", "bicubic"]


def resized(maps: Tensor, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
    """Maps (1, N, h, w) at another size (height, width); bicubic ones antialiased."""
    antialias = interpolation == "bicubic"
    return F.interpolate(maps, size, mode=interpolation, align_corners=False, antialias=antialias)


@dataclass
class _Axis:
    """How cells of one axis become pixels.

    Attributes:
        weights: (pixels, cells); rows sum to 1.
        pixels_of: (cells, 2) first pixel that a cell has a part in, and the one after the last; none where
            they are equal.
        cells_of: (pixels, 2) the same from pixels to cells.
    """

    weights: Tensor
    pixels_of: list[list[int]]
    cells_of: list[list[int]]

    @classmethod
    def of(
        cls,
        cells: int,
        padded: int,
        image: int,
        output: int,
        device: torch.device,
        interpolation: Interpolation = "bilinear",
    ) -> _Axis:
        """Resizing of so many cells to pixels of the padded input, of the image in it and of the output."""
        values = torch.eye(cells, device=device)[None, None]  # (1, 1, cells, cells), resized along the last
        values = resized(values, (cells, padded))[..., :image]
        if image != output:
            values = resized(values, (cells, output), interpolation)
        weights = values[0, 0].T.contiguous()
        used = weights != 0
        return cls(weights, _ranges(used.T), _ranges(used))

    def covered(self, first: int, last: int) -> tuple[slice, slice]:
        """Pixels that cells from ``first`` to ``last`` have a part in, and all cells these pixels need."""
        # Cells beyond the image have no pixels.
        spans = [span for span in self.pixels_of[first : last + 1] if span[0] < span[1]]
        if not spans:
            return slice(0, 0), slice(0, 0)
        begin, end = spans[0][0], spans[-1][1]
        return slice(begin, end), slice(self.cells_of[begin][0], self.cells_of[end - 1][1])


def _ranges(used: Tensor) -> list[list[int]]:
    """First and one after the last column that is used of each row (N, 2); equal where none is."""
    first = used.int().argmax(1)
    last = used.shape[1] - used.flip(1).int().argmax(1)
    return torch.stack([first, torch.where(used.any(1), last, first)], 1).tolist()


class MaskResize:
    """Resizes masks of one image.

    Args:
        cells: (h, w) of predicted masks.
        padded, image, output: (height, width) of the padded input that the cells cover, of the image in it,
            and of the result.
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
        self._rows, self._columns = (
            _Axis.of(*sizes, device, interpolation)
            for sizes in zip(cells, padded, image, output, strict=True)
        )

    def runs(self, masks: Tensor) -> Iterator[tuple[dict[str, Any], Tensor, Tensor]]:
        """Each mask as run-length encoding, with its area and the sum of its probabilities inside, scalars.

        Args:
            masks: logits (N, h, w).
        """
        positive = torch.ones_like(masks, dtype=torch.bool) if self.whole else masks > 0
        rows, columns = _ranges(positive.any(2)), _ranges(positive.any(1))
        for mask, (top, bottom), (left, right) in zip(masks, rows, columns, strict=True):
            y, cells_y = self._rows.covered(top, bottom - 1)
            x, cells_x = self._columns.covered(left, right - 1)
            yield self._run_lengths(mask[cells_y, cells_x], y, x, cells_y, cells_x)

    def _run_lengths(
        self, cells: Tensor, y: slice, x: slice, cells_y: slice, cells_x: slice
    ) -> tuple[dict[str, Any], Tensor, Tensor]:
        """Run lengths of the pixels in rows ``y`` and columns ``x``, which ``cells`` cover."""
        height = y.stop - y.start
        area, total = cells.new_zeros(()), cells.new_zeros(())
        bounds = [np.zeros(0, np.int64)]
        step = items_in_cache(FLOAT_BYTES * max(1, height), cells.device)
        for first in range(x.start, x.stop if height else x.start, step):
            part = slice(first, min(first + step, x.stop))
            # Down the columns, as run-length encoding counts.
            across = self._columns.weights[part, cells_x] @ cells.T  # (C, h)
            logits = across @ self._rows.weights[y, cells_y].T  # (C, R)
            inside = logits > 0
            area += inside.sum()
            total += (logits.sigmoid_() * inside).sum()
            bounds.append(_bounds(inside, y.start, first, self.output[0]))
        return rle_of_runs(np.concatenate(bounds), self.output), area, total


def _bounds(inside: Tensor, top: int, left: int, height: int) -> np.ndarray:
    """Begin and end of every run of a region (C, R) at (top, left) of a mask of ``height`` rows."""
    count = inside.shape[1] + 1
    # With a pixel outside before every column, each run ends in its own.
    framed = F.pad(inside, (1, 0)).flatten()  # (C * (R + 1),)
    changes = torch.nonzero(framed[1:] ^ framed[:-1]).squeeze(1).cpu().numpy() + 1
    if len(changes) % 2:  # the last one ends with the region
        changes = np.append(changes, len(framed))
    pixels = changes - np.arange(len(changes)) % 2  # of ends the last pixel of the run
    places = (left + pixels // count) * height + top + pixels % count - 1
    return places + np.arange(len(changes)) % 2
