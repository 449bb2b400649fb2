"""Coloured masks and boxes, with outlines that are visible on any background."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from detrex.visualization.colors import Color, contrasting

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels

_OPACITY = 0.45  # of an object's mask
_MAP_OPACITY = 0.6  # of segments in a map of the whole image, which has no boxes
_CASING_OPACITY = 0.8
_FAINT = 0.4  # opacity of the casing of boxes that have masks


@dataclass(frozen=True)
class Region:
    """Something to draw, in pixels of the frame: a mask, a box, or both.

    Attributes:
        color: of mask and lines.
        label: the text beside it.
        box: absolute xyxy, or None.
        mask: (h, w) bool, cropped to the pixels that it covers, or None.
        corner: (x, y) of the mask's upper left pixel in the frame.
    """

    color: Color
    label: str
    box: Box | None = None
    mask: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)

    @classmethod
    def from_mask(
        cls, color: Color, label: str, mask: np.ndarray | None = None, box: Box | None = None
    ) -> Region:
        """Crops a mask of the whole frame, (H, W) bool. If the mask is empty, only the box is left."""
        if mask is None or not mask.any():
            return cls(color, label, box)
        rows = np.flatnonzero(mask.any(1))
        mask = mask[rows[0] : rows[-1] + 1]
        columns = np.flatnonzero(mask.any(0))
        mask = mask[:, columns[0] : columns[-1] + 1]
        return cls(color, label, box, mask, (int(columns[0]), int(rows[0])))

    @cached_property
    def area(self) -> float:
        """Number of pixels of the frame that are covered."""
        if self.mask is not None:
            return float(np.count_nonzero(self.mask))
        return 0.0 if self.box is None else (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])

    @property
    def extent(self) -> Box | None:
        """The box, or a box around the mask; None if there is nothing to draw."""
        if self.box is not None or self.mask is None:
            return self.box
        (x, y), (height, width) = self.corner, self.mask.shape
        return x, y, x + width, y + height


def line_width(size: tuple[int, int]) -> int:
    """Width in pixels of outlines in a picture of (width, height) ``size``."""
    return max(1, round(max(size) / 350))


def paint_mask(canvas: Image.Image, region: Region, scale: int) -> None:
    """Blends the region's mask, if it has one, into ``canvas``, with an outline in two tones.

    A line in the region's colour lies inside the mask. A thin line around the mask is black or white,
    whichever contrasts with that colour. On any background, at least one of the two is visible.
    """
    if region.mask is None:
        return
    mask = region.mask.repeat(scale, 0).repeat(scale, 1)
    # Thinner lines for the smallest masks, which would otherwise be nothing but lines.
    line = min(line_width(canvas.size), 1 + min(mask.shape) // 12)
    casing = (line + 1) // 2
    room = np.pad(mask, casing)
    x, y = (scale * c for c in region.corner)
    around = grown(room, casing) & ~room
    canvas.paste(contrasting(region.color), (x - casing, y - casing), _alpha(around, _CASING_OPACITY))
    opacity = _MAP_OPACITY if region.box is None else _OPACITY
    alpha = np.asarray(_alpha(mask, opacity)).copy()
    alpha[mask & grown(np.pad(~mask, line, constant_values=True), line)[line:-line, line:-line]] = 255
    canvas.paste(region.color, (x, y), Image.fromarray(alpha))


def paint_box(canvas: Image.Image, region: Region, scale: int) -> None:
    """Draws the region's box, if it has one, between thin contrasting lines; fainter beside a mask."""
    if region.box is None:
        return
    x0, y0, x1, y1 = _covered(region.box, scale, canvas.size)
    alone = region.mask is None
    line = line_width(canvas.size) if alone else (line_width(canvas.size) + 1) // 2
    line = min(line, 1 + min(x1 - x0, y1 - y0) // 12)
    casing = (line + 1) // 2
    around = (x0 - casing, y0 - casing, x1 + casing, y1 + casing)
    width = 2 * casing + line if alone else casing
    _paint_frame(canvas, around, width, contrasting(region.color), _CASING_OPACITY if alone else _FAINT)
    _paint_frame(canvas, (x0, y0, x1, y1), line, region.color, 1.0)


def _paint_frame(
    canvas: Image.Image, frame: tuple[int, int, int, int], line: int, color: Color, opacity: float
) -> None:
    """Draws lines of ``line`` pixels inside a rectangle; ``frame`` holds its first and last pixels."""
    x0, y0, x1, y1 = frame[0], frame[1], frame[2] + 1, frame[3] + 1
    inner_top, inner_bottom = min(y0 + line, y1), max(y1 - line, y0 + line)
    sides = (
        (x0, y0, x1, inner_top),
        (x0, inner_bottom, x1, y1),
        (x0, inner_top, min(x0 + line, x1), inner_bottom),
        (max(x1 - line, x0 + line), inner_top, x1, inner_bottom),
    )
    for left, top, right, bottom in sides:
        if right > left and bottom > top:
            mask = Image.new("L", (right - left, bottom - top), round(255 * opacity))
            canvas.paste(color, (left, top), mask)


def grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """The (H, W) bool ``mask`` with all pixels up to about ``steps`` pixels from it.

    Steps in four and in eight directions take turns, which makes octagons of points.
    """
    for step in range(steps):
        tall = mask.copy()
        tall[1:] |= mask[:-1]
        tall[:-1] |= mask[1:]
        source = tall if step % 2 else mask
        wide = tall.copy()
        wide[:, 1:] |= source[:, :-1]
        wide[:, :-1] |= source[:, 1:]
        mask = wide
    return mask


def _alpha(mask: np.ndarray, opacity: float) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * np.uint8(round(255 * opacity)))


def _covered(box: Box, scale: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and last pixels, x0, y0, x1, y1, that a box covers in a picture of (width, height) ``size``."""
    x0, y0 = (round(max(0, min(scale * c, limit - 1))) for c, limit in zip(box[:2], size, strict=True))
    x1, y1 = (round(max(0, min(scale * c, limit))) - 1 for c, limit in zip(box[2:], size, strict=True))
    return x0, y0, max(x0, x1), max(y0, y1)
