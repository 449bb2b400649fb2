"""Moves polygons of objects with an image and draws them afterwards, at their final size.

Masks that are drawn first and resized later lose small objects, and their boxes are rounded to whole pixels.
Published models were trained with masks and boxes from moved polygons.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional import register_kernel

Polygon = np.ndarray
"""Points (x, y) in pixels, (P, 2) float64."""


class Points(tv_tensors.TVTensor):
    """Points (x, y) in pixels of an image, (P, 2) float64; they may lie outside it.

    Horizontal flips and the transforms of :mod:`detrex.data.transforms` move them. Other transforms of
    torchvision do not know them and leave them as they are.

    Attributes:
        canvas_size: (height, width) of the image in pixels.
    """

    canvas_size: tuple[int, int]

    @classmethod
    def on_canvas(cls, points: Tensor, canvas_size: tuple[int, int]) -> Points:
        wrapped = points.as_subclass(cls)
        wrapped.canvas_size = canvas_size
        return wrapped


@register_kernel(F.horizontal_flip, Points)
def _flip(points: Points) -> Points:
    x, y = points.as_subclass(Tensor).unbind(-1)
    return Points.on_canvas(torch.stack([points.canvas_size[1] - x, y], -1), points.canvas_size)


def draw(objects: Sequence[Sequence[Polygon]], height: int, width: int) -> Tensor:
    """Draws masks (N, H, W) bool with pycocotools, each with all polygons of an object."""
    masks = torch.zeros(len(objects), height, width, dtype=torch.bool)
    for mask, polygons in zip(masks, objects, strict=True):
        flat = [polygon.reshape(-1) for polygon in polygons]
        if flat:
            drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))
            mask.copy_(torch.from_numpy(drawn))
    return masks


def visible_boxes(objects: Sequence[Sequence[Polygon]], height: int, width: int) -> Tensor:
    """Boxes (N, 4) float32, absolute xyxy, around the parts inside the image; zeros for no such part."""
    boxes = torch.zeros(len(objects), 4)
    for box, polygons in zip(boxes, objects, strict=True):
        points = [_extreme_points(polygon, np.array([width, height], float)) for polygon in polygons]
        found = np.concatenate(points) if points else np.zeros((0, 2))
        if len(found):
            box.copy_(torch.from_numpy(np.concatenate([found.min(0), found.max(0)])))
    return boxes


def _extreme_points(polygon: Polygon, size: np.ndarray) -> np.ndarray:
    """Points (M, 2) with the same box as the part of the polygon in the rectangle from (0, 0) to ``size``.

    The extreme points of that part are corners of the polygon, corners of the rectangle inside the polygon,
    or intersections of edges of the two.
    """
    inside = ((polygon >= 0) & (polygon <= size)).all(1)
    if inside.all():
        return polygon
    following = np.roll(polygon, -1, 0)
    found = [polygon[inside], _corners_within(polygon, following, size)]
    for axis in (0, 1):
        for bound in (0.0, size[axis]):
            crosses = (polygon[:, axis] < bound) != (following[:, axis] < bound)
            start, end = polygon[crosses], following[crosses]
            share = (bound - start[:, axis]) / (end[:, axis] - start[:, axis])
            points = start + share[:, None] * (end - start)
            points[:, axis] = bound
            across = points[:, 1 - axis]
            found.append(points[(across >= 0) & (across <= size[1 - axis])])
    return np.concatenate(found)


def _corners_within(polygon: Polygon, following: Polygon, size: np.ndarray) -> np.ndarray:
    """The corners (up to 4, 2) of the rectangle that lie inside the polygon, by the even-odd rule."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]) * size
    x, y = corners[:, :1], corners[:, 1:]
    crosses = (polygon[:, 1] > y) != (following[:, 1] > y)  # (4, P)
    rise = following[:, 1] - polygon[:, 1]
    share = (y - polygon[:, 1]) / np.where(rise == 0, 1.0, rise)
    right = crosses & (x < polygon[:, 0] + share * (following[:, 0] - polygon[:, 0]))
    return corners[right.sum(1) % 2 == 1]
