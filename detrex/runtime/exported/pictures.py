"""Converts everything that may be given as a picture to an array."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

PictureInput = Any
"""A path, bytes of an image file, an open one, a PIL image or an array; see :func:`to_array`."""

_HIGHEST = 65535


def to_array(picture: PictureInput, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB, in one block of memory.

    Args:
        picture: path of a file, bytes of an image file, an open one, or a PIL image (these need the package
            pillow), turned as its EXIF orientation says; array (H, W, 3) in RGB, (H, W, 4) in RGBA or (H, W)
            in grey, uint8 or uint16.
        value_range: for 16 bits a channel, the values that become 0 and 255; by default 0 and 65535.

    Raises:
        ValueError, TypeError: the picture is none of these, or it cannot be decoded.
    """
    pixels = picture if isinstance(picture, np.ndarray) else _decoded(picture)
    known = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype not in (np.uint8, np.uint16) or not known or 0 in pixels.shape:
        raise ValueError(
            f"a picture of shape {pixels.shape} and type {pixels.dtype}: expected (H, W, 3) in RGB, "
            "(H, W, 4) in RGBA or (H, W) in grey, uint8 or uint16"
        )
    if pixels.dtype == np.uint16:
        low, high = value_range or (0, _HIGHEST)
        scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
        pixels = np.floor(scaled + 0.5).clip(0, 255).astype(np.uint8)
    rgb = pixels[..., :3] if pixels.ndim == 3 else pixels[..., None].repeat(3, -1)
    return np.ascontiguousarray(rgb)


def _decoded(picture: PictureInput) -> np.ndarray:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("files and PIL images need the package pillow: pip install pillow") from error
    if isinstance(picture, Image.Image):
        image = picture
    elif isinstance(picture, str | Path | bytes | bytearray | memoryview) or hasattr(picture, "read"):
        source = picture
        if isinstance(picture, bytes | bytearray | memoryview):
            source = io.BytesIO(bytes(picture))
        try:
            image = Image.open(source)
            image.load()
        except (OSError, SyntaxError, EOFError) as error:
            name = picture if isinstance(picture, str | Path) else "the picture"
            raise ValueError(f"{name} cannot be read as an image ({error})") from error
    else:
        raise TypeError(
            f"a picture of type {type(picture).__name__}: expected a path, bytes, a file, a PIL image or an "
            "array"
        )
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        deep = np.asarray(upright)
        if deep.min() < 0 or deep.max() > _HIGHEST:
            raise ValueError("a picture of 32 bits a channel: convert it to 8 or 16 bits")
        return deep.astype(np.uint16)
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return np.array(upright.convert("RGB"))
