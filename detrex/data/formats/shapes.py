"""Shapes of labelling tools as polygons and RLE."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


def circle(x: float, y: float, radius_x: float, radius_y: float | None = None) -> list[float]:
    """A polygon of 32 points on a circle or ellipse."""
    radius_y = radius_x if radius_y is None else radius_y
    angles = [2 * math.pi * k / 32 for k in range(32)]
    return [value for a in angles for value in (x + radius_x * math.cos(a), y + radius_y * math.sin(a))]


def rle_of(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed RLE of a mask (H, W)."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
