"""Converts shapes of labelling tools to polygons and RLE."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from detrex.data.image_io import pixel_limit


def circle(x: float, y: float, radius_x: float, radius_y: float | None = None) -> list[float]:
    """A polygon of 32 points on a circle or ellipse."""
    radius_y = radius_x if radius_y is None else radius_y
    angles = [2 * math.pi * k / 32 for k in range(32)]
    return [value for a in angles for value in (x + radius_x * math.cos(a), y + radius_y * math.sin(a))]


def rle_of(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed RLE of a mask (H, W)."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def empty_mask(size: tuple[int, int]) -> np.ndarray:
    """An empty mask, (H, W) bool.

    Raises:
        ValueError: annotations claim a size that is not allowed for images, see
            :data:`detrex.data.image_io.PIXEL_LIMIT`.
    """
    limit = pixel_limit()
    if limit and size[0] * size[1] > limit:
        raise ValueError(f"its image is said to have {size[0]} x {size[1]} pixels, more than {limit}")
    return np.zeros(size, bool)


def mask_of_png(text: str, corner: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) bool from a PNG in base64 whose upper left corner is at (x, y)."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as picture:
        if picture.width > size[1] + 1 or picture.height > size[0] + 1:
            raise ValueError("its mask is larger than the image")
        piece = np.asarray(picture.convert("L")) > 0
    mask = empty_mask(size)
    x, y = max(round(corner[0]), 0), max(round(corner[1]), 0)
    room = mask[y : y + piece.shape[0], x : x + piece.shape[1]]
    room |= piece[: room.shape[0], : room.shape[1]]
    return mask
