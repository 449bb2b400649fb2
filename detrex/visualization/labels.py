"""Writes labels where they can be read and hide little."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from detrex.visualization.colors import contrasting
from detrex.visualization.regions import Region
from detrex.visualization.text import Line, typeset

Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, both ends inclusive

_SHARE = 0.15  # largest share of a picture's area that labels cover
_LONGEST = 0.35  # largest width of a label as a share of the picture's,
_MIN_LONGEST = 12  # or, if that is more, in heights of letters
_MIN_SIZE = 11  # smallest height of letters in pixels
_CROWDED = 0.65  # factor by which letters may shrink to make room for more labels
_MAX_COVERED = 0.6  # largest number of objects that a label may hide
_DEPTH_SIDE = 128  # side in pixels of the grid on which the middle of a mask is searched


def write_labels(canvas: Image.Image, regions: Sequence[Region], scale: int) -> None:
    """Writes the labels of ``regions``, the first ones first, as long as there is room.

    Args:
        canvas: picture to write on.
        regions: in pixels of the frame.
        scale: pixels of the picture for one of the frame.
    """
    draw = ImageDraw.Draw(canvas)
    lines = _set_lines([region.label for region in regions], canvas.size)
    places = place_labels(regions, [(line.width, line.height) for line in lines], scale, canvas.size)
    for region, line, place in zip(regions, lines, places, strict=True):
        if place is None:
            continue
        center = (place[0] + place[2] + 1) / 2, (place[1] + place[3] + 1) / 2
        draw.rectangle(place, fill=region.color)
        draw.text(center, line.text, fill=contrasting(region.color), font=line.font, anchor="mm")


def place_labels(
    regions: Sequence[Region], extents: Sequence[tuple[int, int]], scale: int, size: tuple[int, int]
) -> list[Rectangle | None]:
    """A rectangle for each region's label; None if there is no good place for it.

    Rectangles lie in the picture and do not overlap; together they cover a small share of the picture, and
    each hides little of small objects.

    Args:
        regions: in pixels of the frame; the first ones choose first.
        extents: (width, height) of their labels in pixels of the picture.
        scale: pixels of the picture for one of the frame.
        size: (width, height) of the picture.
    """
    budget = _SHARE * size[0] * size[1]
    objects = np.array([r.extent or (0, 0, 0, 0) for r in regions], float).reshape(-1, 4) * scale
    taken = np.zeros((0, 4))
    chosen: list[Rectangle | None] = []
    for i, (region, extent) in enumerate(zip(regions, extents, strict=True)):
        width, height = extent
        place = None
        if width * height <= budget and width <= size[0] and height <= size[1]:
            place = _best_place(_places(region, scale, width, height), extent, size, (objects, i), taken)
        chosen.append(place)
        if place is not None:
            budget -= width * height
            taken = np.vstack([taken, (place[0], place[1], place[2] + 1, place[3] + 1)])
    return chosen


def _best_place(
    corners: Sequence[tuple[float, float]],
    extent: tuple[int, int],
    size: tuple[int, int],
    objects: tuple[np.ndarray, int],
    taken: np.ndarray,
) -> Rectangle | None:
    """The rectangle of ``extent`` at one of ``corners``, in order of preference, that hides the least.

    Args:
        corners: (x, y) of the rectangle's upper left corner; moved into the picture if need be.
        extent: (width, height).
        size: (width, height) of the picture.
        objects: (N, 4) xyxy of all objects, and which of them is the label's own.
        taken: (M, 4) xyxy of other labels.
    """
    boxes, own_index = objects
    if not corners:
        return None
    wanted = np.array(corners)
    moved = np.round(np.clip(wanted, 0, np.array(size) - extent))
    places = np.concatenate([moved, moved + extent], 1)
    hidden = _overlap(places, boxes) / np.maximum(_area(boxes), 1)
    hidden[:, own_index] /= 2  # a label should rather lie on its own object than on others
    cost = hidden.sum(1)
    free = (_overlap(places, taken).sum(1) == 0) & (cost <= _MAX_COVERED)
    if not free.any():
        return None
    # Far from its preferred place, it is harder to see what a label belongs to.
    far = np.abs(moved - wanted).max(1) > 0.75 * extent[1]
    x0, y0, x1, y1 = places[np.where(free, cost + 0.3 * far + 0.02 * np.arange(len(cost)), np.inf).argmin()]
    return int(x0), int(y0), int(x1) - 1, int(y1) - 1


def _places(region: Region, scale: int, width: int, height: int) -> list[tuple[float, float]]:
    """Possible places of the label's upper left corner, the best first; empty if there is nothing to draw."""
    if region.extent is None:
        return []
    x0, y0, x1, y1 = (scale * c for c in region.extent)
    around = [
        (x0, y0 - height),
        (x1 - width, y0 - height),
        (x0, y1),
        (x1 - width, y1),
        (x1, y0),
        (x0 - width, y0),
        (x1, y1 - height),
        (x0 - width, y1 - height),
    ]
    if region.box is None and region.mask is not None:
        x, y = (scale * (c + 0.5) for c in _deepest_point(region.mask, region.corner))
        middle = [(x - width / 2, y - height / 2 + shift * height) for shift in (0, -1, 1, -2, 2, -3, 3)]
        return middle + around
    inside = [(x0, y0), (x0, y1 - height), ((x0 + x1 - width) / 2, (y0 + y1 - height) / 2)]
    return around + inside


def _deepest_point(mask: np.ndarray, corner: tuple[int, int]) -> tuple[int, int]:
    """The pixel (x, y) farthest from the edges of an (H, W) mask at ``corner``, roughly for large masks."""
    step = math.ceil(max(mask.shape) / _DEPTH_SIDE)
    coarse = mask[::step, ::step]
    if not coarse.any():
        step, coarse = 1, mask
    depth = ndimage.distance_transform_edt(np.pad(coarse, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return corner[0] + step * int(x), corner[1] + step * int(y)


def _set_lines(labels: Sequence[str], size: tuple[int, int]) -> list[Line]:
    """The labels, in letters whose size fits the picture and, while legible, the number of labels."""
    width, height = size
    letters = max(_MIN_SIZE, min(max(14, round(max(size) / 36)), height // 6))
    lines = _set(labels, letters, width)
    needed = sum(line.width * line.height for line in lines) / (_SHARE * width * height)
    if needed <= 1:
        return lines
    smaller = max(_MIN_SIZE, round(letters * max(_CROWDED, needed**-0.5)))
    return _set(labels, smaller, width)


def _set(labels: Sequence[str], letters: int, width: int) -> list[Line]:
    longest = min(width, max(_LONGEST * width, _MIN_LONGEST * letters))
    return [typeset(label, letters, longest) for label in labels]


def _overlap(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Areas (K, N) that (K, 4) and (N, 4) xyxy rectangles share."""
    low = np.maximum(places[:, None, :2], boxes[None, :, :2])
    high = np.minimum(places[:, None, 2:], boxes[None, :, 2:])
    return (high - low).clip(0).prod(2)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
