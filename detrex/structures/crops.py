"""Masks that are cropped to the rectangle around their pixels, to be moved, compared and joined cheaply.

Shape letters: H and W pixels of the image, h and w of a crop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from detrex.structures.rle import RunLengthMasks, rle_of_runs


class Rectangle(NamedTuple):
    """Rows from ``top`` up to ``bottom`` and columns from ``left`` up to ``right``, the ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def is_empty(self) -> bool:
        return self.bottom <= self.top or self.right <= self.left

    def meet(self, other: Rectangle) -> Rectangle:
        """The intersection of two rectangles; empty if they share nothing."""
        return Rectangle(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def hull(self, other: Rectangle) -> Rectangle:
        """The smallest rectangle around two."""
        return Rectangle(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


@dataclass(frozen=True, eq=False)
class CroppedMask:
    """A mask that holds only the rectangle around its pixels.

    Attributes:
        top, left: where the rectangle lies in the image, in pixels.
        pixels: (h, w) bool.
    """

    top: int
    left: int
    pixels: np.ndarray

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> CroppedMask:
        """Crops a mask of the whole image, (H, W) bool."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return cls(0, 0, np.zeros((0, 0), bool))
        top, left = int(rows[0]), int(columns[0])
        return cls(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())

    @classmethod
    def decode(cls, rle: Mapping[str, Any]) -> CroppedMask:
        """Decodes pycocotools' form of run-length encoding."""
        left, top, width, height = (int(side) for side in coco_mask.toBbox(rle))
        pixels = coco_mask.decode(rle)[top : top + height, left : left + width]
        return cls(top, left, pixels.astype(bool, order="C"))

    @property
    def rectangle(self) -> Rectangle:
        height, width = self.pixels.shape
        return Rectangle(self.top, self.left, self.top + height, self.left + width)

    @property
    def area(self) -> int:
        """The area in pixels."""
        return int(np.count_nonzero(self.pixels))

    def moved(self, down: int, right: int) -> CroppedMask:
        """The mask in an image with ``down`` more rows above and ``right`` more columns on the left."""
        return replace(self, top=self.top + down, left=self.left + right)

    def flipped(self, width: int) -> CroppedMask:
        """The mask in the image mirrored left to right, which is ``width`` pixels wide."""
        left = width - self.left - self.pixels.shape[1]
        return replace(self, left=left, pixels=self.pixels[:, ::-1])

    def inside(self, part: Rectangle) -> np.ndarray:
        """A view of the pixels within ``part``, which lies in the mask's rectangle."""
        return self.pixels[
            part.top - self.top : part.bottom - self.top, part.left - self.left : part.right - self.left
        ]

    def area_inside(self, part: Rectangle) -> int:
        """How many pixels of the mask lie in a rectangle of the image."""
        shared = self.rectangle.meet(part)
        return 0 if shared.is_empty else int(np.count_nonzero(self.inside(shared)))

    def intersection(self, other: CroppedMask) -> int:
        """How many pixels two masks share."""
        shared = self.rectangle.meet(other.rectangle)
        if shared.is_empty:
            return 0
        return int(np.count_nonzero(self.inside(shared) & other.inside(shared)))

    def encode(self, size: tuple[int, int]) -> dict[str, Any]:
        """Encodes it as pycocotools' RLE, in an image of (height, width) ``size``."""
        columns = np.pad(self.pixels.T, ((0, 0), (1, 1)))
        column, row = np.nonzero(columns[:, 1:] != columns[:, :-1])
        bounds = (self.left + column.astype(np.int64)) * size[0] + self.top + row
        return rle_of_runs(bounds, size)


def vote(masks: Sequence[CroppedMask], weights: Sequence[float], share: float = 0.5) -> CroppedMask:
    """The pixels in masks that have at least ``share`` of the weight; with ``share=0``, those in any mask."""
    present = [(mask, weight) for mask, weight in zip(masks, weights, strict=True) if mask.pixels.size]
    total = sum(weights)
    if not present or total <= 0:
        return CroppedMask(0, 0, np.zeros((0, 0), bool))
    whole = present[0][0].rectangle
    for mask, _ in present[1:]:
        whole = whole.hull(mask.rectangle)
    votes = np.zeros((whole.bottom - whole.top, whole.right - whole.left), np.float32)
    for mask, weight in present:
        rectangle = mask.rectangle
        rows = slice(rectangle.top - whole.top, rectangle.bottom - whole.top)
        columns = slice(rectangle.left - whole.left, rectangle.right - whole.left)
        votes[rows, columns] += np.float32(weight / total) * mask.pixels
    # 1e-4 is more than sums of float32 may lose; masks whose weight is zero do not count.
    return CroppedMask.from_mask((votes >= share - 1e-4) & (votes > 0)).moved(whole.top, whole.left)


def encode_crops(crops: Sequence[CroppedMask], size: tuple[int, int]) -> RunLengthMasks:
    """Masks of one image of (height, width) ``size``, compressed."""
    return RunLengthMasks(size, [crop.encode(size) for crop in crops])
