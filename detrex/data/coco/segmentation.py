"""Checks, measures, draws and writes COCO's two forms of a mask: polygons and run-length encoding (RLE).

Nothing reaches pycocotools unchecked: for an RLE that is too short, it returns random pixels; for runs that
do not add up, it never ends; for coordinates that are not finite or far away, it allocates gigabytes or
crashes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

_MIN_POLYGON = 6  # numbers: three points
# Polygons narrower or smaller than this (pixels, square pixels) may cover no pixel's centre.
_THIN, _SMALL = 1.5, 4.0
# A polygon may extend beyond its image by this many times the image's longer side. pycocotools walks along
# each edge in fifths of a pixel, so its memory grows with the length of the outline.
_REACH = 4
_LARGEST_RUN_CODE = 12  # characters: 60 bits
_KEYS_OF_RLE = ("size", "counts")

Box = tuple[float, float, float, float]


class Segmentation(msgspec.Struct, array_like=True, frozen=True):
    """A checked mask in one of the two forms.

    Attributes:
        polygons: float64 numbers x, y, x, y, ... in pixels as bytes, of at least three points each.
        counts: COCO's compressed RLE, instead of polygons.
    """

    polygons: list[bytes] = []
    counts: bytes = b""


class Extent(NamedTuple):
    """Box and area of a mask.

    Attributes:
        box: absolute xyxy in pixels, clipped to the image.
        area: in square pixels; overlapping polygons are added up.
    """

    box: Box
    area: float


def read_segmentation(value: Any, size: tuple[int, int]) -> tuple[Segmentation, Extent] | None:
    """Checks a ``segmentation``.

    Polygons of fewer than three points are left out.

    Args:
        value: the value in the JSON file.
        size: (height, width) of the image in pixels.

    Returns:
        The segmentation and its extent, or None if it covers no pixel of the image.

    Raises:
        ValueError: the value is neither a list of polygons nor an RLE, has numbers that are not finite or far
            outside the image, or is an RLE of a different size; the message says which.
    """
    if isinstance(value, Mapping):
        segmentation = Segmentation(counts=_checked_rle(value, size))
        return _measured(segmentation, size)
    if not isinstance(value, list):
        raise ValueError("is neither a list of polygons nor an RLE")
    polygons, boxes, area = [], [], 0.0
    reach = _REACH * max(size)
    for points in value:
        numbers = _numbers(points, value)
        if len(numbers) < _MIN_POLYGON:
            _check_nesting(value)
            continue
        xs, ys = numbers[::2], numbers[1::2]
        box = min(xs), min(ys), max(xs), max(ys)
        if min(box) < -reach or max(box) > reach:
            raise ValueError(_far(box, size))
        polygons.append(numbers.tobytes())
        boxes.append(box)
        area += abs(sum(map(mul, xs, ys[1:] + ys[:1])) - sum(map(mul, ys, xs[1:] + xs[:1]))) / 2
    if not polygons:
        return None
    segmentation = Segmentation(polygons)
    x0, y0, x1, y1 = _union(boxes) if len(boxes) > 1 else boxes[0]
    if min(x1 - x0, y1 - y0) < _THIN or area < _SMALL or x0 < 0 or y0 < 0 or x1 > size[1] or y1 > size[0]:
        # This is slower, but rare.
        return _measured(segmentation, size)
    return segmentation, Extent((x0, y0, x1, y1), area)


def to_rle(segmentation: Segmentation, height: int, width: int) -> dict[str, Any]:
    """The mask in pycocotools' form: ``size`` and compressed ``counts`` (bytes)."""
    if segmentation.counts:
        return {"size": [height, width], "counts": segmentation.counts}
    polygons = [np.frombuffer(polygon) for polygon in segmentation.polygons]
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


def rasterise(segmentations: Sequence[Segmentation], height: int, width: int) -> Tensor:
    """Draws masks, (N, H, W) bool."""
    if not segmentations:
        return torch.zeros(0, height, width, dtype=torch.bool)
    decoded = coco_mask.decode([to_rle(s, height, width) for s in segmentations])  # (H, W, N)
    return torch.from_numpy(np.ascontiguousarray(decoded.transpose(2, 0, 1))).view(torch.bool)


def rle_length(counts: str | bytes) -> int:
    """Total number of pixels in the runs of a compressed RLE.

    Each number is a series of characters, from the lowest 5 bits to the highest; bit 5 of a character (after
    subtracting 48) says that another one follows, and bit 4 of the last one is the sign. From the fourth on,
    a number is the difference to the run before the previous one.

    Raises:
        ValueError: the RLE has other characters, ends within a number, or has a negative run.
    """
    data = counts.encode() if isinstance(counts, str) else counts
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if len(codes) and not (0 <= codes.min() and codes.max() < 64):
        raise ValueError("it has characters that an RLE does not have")
    ends = np.flatnonzero(codes & 32 == 0)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError("it ends within a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LARGEST_RUN_CODE:
        raise ValueError("a run is too long")
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 31) << place, starts)
    values -= np.where(codes[ends] & 16, 32 << place[ends], 0)
    runs = [values[:1], np.cumsum(values[1::2]), np.cumsum(values[2::2])]
    if any((r < 0).any() for r in runs):
        raise ValueError("a run is negative")
    return int(sum(r.sum() for r in runs))


def _measured(segmentation: Segmentation, size: tuple[int, int]) -> tuple[Segmentation, Extent] | None:
    rle = to_rle(segmentation, *size)
    if not (area := float(coco_mask.area(rle))):
        return None
    x, y, width, height = coco_mask.toBbox(rle).tolist()
    return segmentation, Extent((x, y, x + width, y + height), area)


def _check_nesting(polygons: list[Any]) -> None:
    if polygons and all(isinstance(p, int | float) for p in polygons):
        raise ValueError(
            "is one flat list of numbers; a list of polygons is a list of such lists: [[x, y, ...]]"
        )
    if not all(isinstance(p, list) for p in polygons):
        raise ValueError("is neither a list of polygons nor an RLE")
    if polygons and all(len(p) == 2 and all(isinstance(v, int | float) for v in p) for p in polygons):
        raise ValueError("is a list of pairs [x, y]; a polygon is one list x, y, x, y, ... without pairs")
    if any(isinstance(v, list) for p in polygons for v in p[:1]):
        raise ValueError("has points as pairs [x, y]; a polygon is one list x, y, x, y, ... without pairs")


def _numbers(points: Any, polygons: list[Any]) -> array:
    try:
        numbers = array("d", points if isinstance(points, list) else [None])
    except TypeError:
        _check_nesting(polygons)
        numbers = array("d", [math.nan])
    if len(numbers) % 2 or not math.isfinite(sum(numbers)):
        raise ValueError("has a polygon that is not a list of finite numbers x, y, x, y, ...")
    return numbers


def _far(box: Box, size: tuple[int, int]) -> str:
    return (
        f"has a polygon from ({box[0]:g}, {box[1]:g}) to ({box[2]:g}, {box[3]:g}), far outside of the image "
        f"of {size[1]} x {size[0]} pixels (width x height)"
    )


def _union(boxes: Sequence[Box]) -> Box:
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _checked_rle(rle: Mapping[str, Any], size: tuple[int, int]) -> bytes:
    """Compressed counts of an RLE in the form of JSON files."""
    if missing := [key for key in _KEYS_OF_RLE if key not in rle]:
        raise ValueError(f"is an RLE without {' and '.join(map(repr, missing))}")
    if not isinstance(rle["size"], list) or rle["size"] != list(size):
        raise ValueError(
            f"is an RLE for {rle['size']} pixels (height, width), but the image is listed with {list(size)}"
        )
    counts, pixels = rle["counts"], size[0] * size[1]
    if isinstance(counts, list):
        if not all(isinstance(run, int) and not isinstance(run, bool) and run >= 0 for run in counts):
            raise ValueError("is an RLE with runs that are not integers from 0 on")
        length = sum(counts)
    elif isinstance(counts, str):
        if counts[:2] in ("b'", 'b"'):
            raise ValueError(
                "is an RLE whose counts are the text of Python bytes, b'...'; decode them to a text"
            )
        try:
            length = rle_length(counts)
        except ValueError as error:
            raise ValueError(f"is an RLE that cannot be decoded: {error}") from error
    else:
        raise ValueError("is an RLE whose 'counts' are neither a text nor a list of runs")
    if length != pixels:
        raise ValueError(f"is an RLE whose runs add up to {length}, not to {size[0]} x {size[1]} = {pixels}")
    if isinstance(counts, str):
        return counts.encode("ascii")
    return coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"]
