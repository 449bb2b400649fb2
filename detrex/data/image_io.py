"""Reads image files of any common kind as 8-bit RGB."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors

from detrex.data.errors import DataError
from detrex.runtime.files import retried

Orientation = Literal["auto", "stored", "shown"]
"""The picture on which annotations were drawn, if EXIF says that it is to be turned: ``stored``, before
turning; ``shown``, after turning; ``auto``: stored if only that has the listed size, else shown."""

ORIENTATIONS: tuple[Orientation, ...] = ("auto", "stored", "shown")

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Types of files that count as images."""

PIXEL_LIMIT = "DETREX_MAX_PIXELS"
"""Environment variable: no reader decodes files of more pixels. 0: no limit."""

_DEFAULT_LIMIT = 178_956_970  # PIL's own
_SIXTEEN_BITS = (0, 65535)

# Errors that PIL's decoders raise for files that are broken or not images.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError)
_SWAPPING = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
_one_at_a_time = threading.Lock()


class ImageFacts(NamedTuple):
    """What a file says about its picture before pixels are decoded.

    Attributes:
        size: (height, width) in pixels as stored.
        turned: whether EXIF says that it is to be turned or mirrored.
        swapped: whether turning it exchanges height and width.
        deep: whether it has 16 bits a channel.
        frames: number of pictures in the file.
    """

    size: tuple[int, int]
    turned: bool
    swapped: bool
    deep: bool
    frames: int

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) after turning."""
        return self.size[::-1] if self.swapped else self.size


def read_image(
    path: str | Path,
    size: tuple[int, int] | None = None,
    image_id: int | str = "",
    orientation: Orientation = "auto",
    value_range: tuple[float, float] | None = None,
) -> Tensor:
    """Reads an image as it is meant to be seen: turned as its EXIF orientation says, in RGB.

    Grey is repeated over the channels, transparency is dropped, CMYK is converted, and 16 bits a channel are
    scaled to 8. From an animation or a file of several pages, the first picture is read.

    Args:
        path: of the file.
        size: (height, width) that the annotations refer to, compared before pixels are decoded.
        image_id: for messages.
        orientation: the picture that ``size`` and the annotations refer to.
        value_range: for files of 16 bits a channel, the values that become 0 and 255, such as (0, 4095) for
            12 bits; by default 0 and 65535.

    Returns:
        ``tv_tensors.Image`` (3, H, W) uint8.

    Raises:
        DataError: there is no such file, it cannot be decoded, its size is not ``size``, it has more pixels
            than :data:`PIXEL_LIMIT` allows, or it has 32 bits a channel, whose range is not known.
    """
    image = _decode(path, image_id, size)
    stored = orientation == "stored" or (orientation == "auto" and _is_stored_size(image, size))
    upright = image if stored else ImageOps.exif_transpose(image)
    if size is not None and (upright.height, upright.width) != tuple(size):
        raise DataError(_other_size(path, image_id, (upright.height, upright.width), size))
    pixels = np.array(_to_rgb(upright, path, image_id, value_range or _SIXTEEN_BITS))
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())


def shown_size(
    path: str | Path, orientation: Orientation = "auto", image_id: int | str = ""
) -> tuple[int, int]:
    """(height, width) in pixels of a file's picture, as stored or, by default, as shown, from its header.

    Raises:
        DataError: as :func:`read_image`.
    """
    facts = image_facts(path, image_id)
    return facts.size if orientation == "stored" else facts.upright


def image_facts(path: str | Path, image_id: int | str = "") -> ImageFacts:
    """Reads the header of a file.

    Raises:
        DataError: as :func:`read_image`.
    """
    with _opened(path, image_id) as image:
        # PIL would decode PNGs without EXIF to look for it at the end of the file.
        exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        return ImageFacts(
            size=(image.height, image.width),
            turned=orientation in range(2, 9),
            swapped=orientation in _SWAPPING,
            deep=image.mode.startswith("I"),
            frames=getattr(image, "n_frames", 1),
        )


def read_label_map(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """The pixels of a PNG that holds numbers, not colours: (H, W) or (H, W, C), without conversion.

    Raises:
        DataError: there is no such file, it cannot be decoded, or its (height, width) is not ``size``.
    """
    with _opened(path, "") as image:
        if size is not None and (image.height, image.width) != tuple(size):
            raise DataError(
                f"{path} has {image.height} x {image.width} pixels (height x width), but the image that "
                f"it labels has {size[0]} x {size[1]}. Make the two of one size."
            )
        image.load()
    return np.asarray(image)


class SmallPicture(NamedTuple):
    """A picture at a small size.

    Attributes:
        pixels: (H, W) uint8, grey.
        is_blank: whether all pixels of the large picture have the same value.
        kind: PIL's name of the file's type, by its content, such as ``"JPEG"``.
    """

    pixels: np.ndarray
    is_blank: bool
    kind: str


def small_picture(path: str | Path, size: tuple[int, int]) -> SmallPicture:
    """Decodes a file, as fast as its type allows, to a grey picture of (height, width) ``size``.

    Raises:
        DataError: as :func:`read_image`.
    """

    def decode() -> SmallPicture:
        with _opened(path, "") as image:
            image.draft("L", (size[1] * 4, size[0] * 4))  # JPEGs are decoded at an eighth of their size
            kind = image.format or ""
            image.load()
            extremes = image.getextrema()
            channels = [extremes] if isinstance(extremes[0], int | float) else extremes
            grey = image if image.mode == "L" else _to_rgb(image, path, "", _SIXTEEN_BITS).convert("L")
            reduced = grey.resize(size[::-1], Image.Resampling.BOX)
        return SmallPicture(np.asarray(reduced), all(low == high for low, high in channels), kind)

    return retried(decode)


def highest_value(path: str | Path) -> int:
    """The highest value of a file of 16 bits a channel."""
    with _opened(path, "") as image:
        return int(np.asarray(image).max())


def _decode(path: str | Path, image_id: int | str, size: tuple[int, int] | None) -> Image.Image:
    def decode() -> Image.Image:
        with _opened(path, image_id) as image:
            stored = image.height, image.width
            if size is not None and tuple(size) not in (stored, stored[::-1]):
                raise DataError(_other_size(path, image_id, stored, size))
            image.load()
        return image

    return retried(decode)


@contextmanager
def _opened(path: str | Path, image_id: int | str) -> Iterator[Image.Image]:
    """Yields an image whose header was read; errors of PIL inside the block become messages for the user."""
    try:
        with _open_any_size(path) as image:
            _check_limit(image, path, image_id)
            yield image
    except FileNotFoundError as error:
        raise DataError(
            f"{_name(path, image_id)} does not exist. Check the path of the folder.", "image-missing"
        ) from error
    except DataError:
        raise
    except _DECODING_ERRORS as error:
        raise DataError(
            f"{_name(path, image_id)} cannot be decoded ({error}). Replace the file, or take it out of the "
            "data set.",
            "image-broken",
        ) from error


def _open_any_size(path: str | Path) -> Image.Image:
    # All threads share PIL's limit of pixels. Our own limit replaces it, for this file only.
    with _one_at_a_time:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def pixel_limit() -> int:
    """The largest number of pixels that readers decode, from :data:`PIXEL_LIMIT`; 0 for no limit.

    Raises:
        DataError: the variable is not a number.
    """
    text = os.environ.get(PIXEL_LIMIT, str(_DEFAULT_LIMIT))
    if not text.isdecimal():
        raise DataError(f"{PIXEL_LIMIT}={text}: expected is a number of pixels, 0 for no limit.")
    return int(text)


def _check_limit(image: Image.Image, path: str | Path, image_id: int | str) -> None:
    limit = pixel_limit()
    if limit and image.height * image.width > limit:
        raise DataError(
            f"{_name(path, image_id)} has {image.height} x {image.width} pixels (height x width), more "
            "than the "
            f"limit of {limit}, which protects from files that claim to be huge. To read it, set the "
            "environment "
            f"variable {PIXEL_LIMIT}={image.height * image.width}."
        )


def _is_stored_size(image: Image.Image, size: tuple[int, int] | None) -> bool:
    """Whether ``size`` is the image's size before, but not after, it is turned upright."""
    swapped = image.getexif().get(ExifTags.Base.Orientation) in _SWAPPING
    square = image.height == image.width
    return size is not None and swapped and not square and (image.height, image.width) == tuple(size)


def _other_size(path: str | Path, image_id: int | str, found: tuple[int, int], size: tuple[int, int]) -> str:
    return (
        f"{_name(path, image_id)} has {found[0]} x {found[1]} pixels (height x width), but "
        f"its annotations are for {size[0]} x {size[1]}. Correct 'height' and 'width' in the annotation "
        "file, or put back the image that was annotated."
    )


def _to_rgb(
    image: Image.Image, path: str | Path, image_id: int | str, value_range: tuple[float, float]
) -> Image.Image:
    if image.mode in ("I", "F"):
        pixels = np.asarray(image)
        # PIL returns 16-bit files of some formats as "I": 32 bits, of which 16 are used.
        if image.mode == "F" or pixels.min() < 0 or pixels.max() > _SIXTEEN_BITS[1]:
            raise DataError(
                f"{_name(path, image_id)} has 32 bits a channel (mode {image.mode}), whose range of values "
                "is not known. Convert it to 8 or 16 bits."
            )
        return Image.fromarray(from_16_bits(pixels, value_range)).convert("RGB")
    if image.mode.startswith("I;16"):
        return Image.fromarray(from_16_bits(np.asarray(image), value_range)).convert("RGB")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def from_16_bits(pixels: np.ndarray, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Scales 16-bit values of any shape to uint8.

    Args:
        pixels: the values.
        value_range: the values that become 0 and 255; by default 0 and 65535.
    """
    low, high = value_range or _SIXTEEN_BITS
    scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
    return np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8)


def _name(path: str | Path, image_id: int | str) -> str:
    return f"Image {path}" + (f" (image id {image_id})" if image_id != "" else "")
