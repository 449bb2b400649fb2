"""Reads image files of any common kind as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors

from detrex.data.errors import DataError

# What PIL's decoders raise on files that are broken or not images.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_ORIENTATIONS_WITH_SWAPPED_SIDES = (5, 6, 7, 8)


def read_image(path: str | Path, size: tuple[int, int] | None = None, image_id: int | str = "") -> Tensor:
    """The image as it is meant to be seen: turned as its EXIF orientation says, in RGB.

    Grey is repeated over the channels, transparency dropped, CMYK converted, and 16 bits a channel are scaled
    to 8 (65535 becomes 255).

    Args:
        path: file.
        size: (height, width) that the annotations refer to. If that is the size of the pixels as they
            are stored, before the EXIF orientation, the annotations were made on these, and the orientation
            is not applied.
        image_id: for messages.

    Returns:
        ``tv_tensors.Image`` (3, H, W) uint8.

    Raises:
        DataError: there is no such file, it does not decode, has another size than ``size``, or holds 32 bits
            a channel, whose range is not known.
    """
    image = _decode(path, image_id)
    upright = image if _is_stored_size(image, size) else ImageOps.exif_transpose(image)
    if size is not None and (upright.height, upright.width) != tuple(size):
        raise DataError(
            f"{_name(path, image_id)} has {upright.height} x {upright.width} pixels (height x width), but "
            f"its annotations are for {size[0]} x {size[1]}. Correct 'height' and 'width' in the annotation "
            "file, or put back the image that was annotated."
        )
    pixels = np.array(_to_rgb(upright, path, image_id))
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())


def read_label_map(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """The pixels of a PNG that holds numbers, not colours: (H, W) or (H, W, C), nothing converted.

    Raises:
        DataError: there is no such file, it does not decode, or it has another (height, width) than ``size``.
    """
    labels = np.asarray(_decode(path, ""))
    if size is not None and labels.shape[:2] != tuple(size):
        raise DataError(
            f"{path} has {labels.shape[0]} x {labels.shape[1]} pixels (height x width), but the image that "
            f"it labels has {size[0]} x {size[1]}. Make the two of one size."
        )
    return labels


def _decode(path: str | Path, image_id: int | str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
        return image
    except FileNotFoundError as error:
        raise DataError(f"{_name(path, image_id)} does not exist. Check the path of the folder.") from error
    except _DECODING_ERRORS as error:
        raise DataError(
            f"{_name(path, image_id)} cannot be decoded ({error}). Replace the file, or take it out of the "
            "data set."
        ) from error


def _is_stored_size(image: Image.Image, size: tuple[int, int] | None) -> bool:
    """Whether ``size`` is the image's before, and not after, it is turned upright."""
    turned = image.getexif().get(ExifTags.Base.Orientation) in _ORIENTATIONS_WITH_SWAPPED_SIDES
    square = image.height == image.width
    return size is not None and turned and not square and (image.height, image.width) == tuple(size)


def _to_rgb(image: Image.Image, path: str | Path, image_id: int | str) -> Image.Image:
    if image.mode in ("I", "F"):
        pixels = np.asarray(image)
        # PIL gives 16-bit files of some formats as "I", 32 bits of which 16 are used.
        if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
            raise DataError(
                f"{_name(path, image_id)} has 32 bits a channel (mode {image.mode}), whose range of values "
                "is not known. Convert it to 8 or 16 bits."
            )
        return _from_16_bits(pixels)
    if image.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(image))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _from_16_bits(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")


def _name(path: str | Path, image_id: int | str) -> str:
    return f"Image {path}" + (f" (image id {image_id})" if image_id != "" else "")
