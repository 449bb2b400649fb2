"""Converts everything that may be given as an image to a record like those of a data set."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors

from detrex.checkpoint import CheckpointError
from detrex.checkpoint.download import fetch, is_url
from detrex.data import DataError, Record
from detrex.data.image_io import from_16_bits, read_image
from detrex.structures import Targets

logger = logging.getLogger(__name__)


@runtime_checkable
class ImageFile(Protocol):
    """An open binary file, or something that reads like one."""

    def read(self) -> bytes: ...


Encoded = bytes | bytearray | memoryview
ValueRange = tuple[float, float] | None
ImageInput = str | Path | Encoded | ImageFile | Image.Image | np.ndarray | Tensor

_KINDS = (
    "a path, the bytes of an image file or an open one, a PIL image, an array (H, W, 3) in RGB, "
    "(H, W, 4) in RGBA or (H, W) in grey, uint8 or uint16, or a tensor (3, H, W) in RGB, (4, H, W) in RGBA "
    "or (1, H, W) in grey, uint8, uint16 or float in 0..255"
)
# Errors that PIL's decoders raise for data that is broken or not an image.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_HIGHEST_OF_16_BITS = 65535


def to_record(
    image: ImageInput, index: int, allow_urls: bool = False, value_range: ValueRange = None
) -> Record:
    """Makes a record without targets.

    Args:
        image: path of a file, or an address if ``allow_urls``; bytes of an image file, or an open file; PIL
            image (turned as its EXIF orientation says); array (H, W, 3) in **RGB** (OpenCV's is BGR: use
            ``array[..., ::-1]``), (H, W, 4) in RGBA or (H, W) in grey, uint8 or uint16; tensor (3, H, W) in
            RGB, (4, H, W) in RGBA or (1, H, W) in grey, uint8, uint16 or float in 0..255, on any device.
            Transparency is dropped, and 16 bits are scaled to 8, as in files. Pixels are copied.
        index: number of the image in the list, which becomes the record's ``image_id``.
        allow_urls: whether an ``https://`` or ``http://`` address may be downloaded (once, see
            :func:`detrex.checkpoint.download.fetch`).
        value_range: for images of 16 bits a channel, the values that become 0 and 255; by default 0 and
            65535.

    Raises:
        DataError: a file cannot be read or downloaded, or bytes cannot be decoded.
        ValueError, TypeError: the shape, range or type is wrong, or an address may not be downloaded.
    """
    pixels = _pixels(image, index, allow_urls, value_range)
    if 0 in pixels.shape:
        raise ValueError(f"image {index} is empty, of shape {tuple(pixels.shape)}")
    height, width = pixels.shape[1:]
    return Record(
        image=tv_tensors.Image(pixels),
        image_id=index,
        file_name=_file_name(image),
        height=height,
        width=width,
        targets=Targets.empty(height, width),
    )


def to_uint8(image: Tensor) -> Tensor:
    """A record's image as plain (3, H, W) uint8 on the CPU."""
    image = image.as_subclass(Tensor)
    if image.dtype != torch.uint8:
        image = image.round().clamp(0, 255).to(torch.uint8)
    return image.cpu()


def _file_name(image: ImageInput) -> str:
    named = image if isinstance(image, str | Path) else getattr(image, "name", "")
    return str(named) if isinstance(named, str | Path) else ""


def _pixels(image: ImageInput, index: int, allow_urls: bool, value_range: ValueRange) -> Tensor:
    """The pixels, (3, H, W) uint8 or float32."""
    if isinstance(image, str | Path):
        path = _downloaded(str(image), allow_urls) if is_url(image) else _existing(Path(image))
        return read_image(path, value_range=value_range)
    if isinstance(image, Image.Image):
        return _from_pil(image, index, value_range)
    if isinstance(image, np.ndarray):
        return _from_array(image, index, value_range)
    if isinstance(image, Tensor):
        return _from_tensor(image, index, value_range)
    if isinstance(image, bytes | bytearray | memoryview):
        return _from_bytes(bytes(image), index, value_range)
    if isinstance(image, ImageFile):
        return _from_bytes(image.read(), index, value_range)
    raise TypeError(f"image {index} is of type {type(image).__name__}; an image may be {_KINDS}")


def _downloaded(url: str, allowed: bool) -> Path:
    if not allowed:
        raise ValueError(f"{url} is an address: give allow_urls=True to download it, or the path of a file")
    try:
        return fetch(url)
    except CheckpointError as error:
        raise DataError(str(error)) from error


def _existing(path: Path) -> Path:
    if path.is_dir():
        raise DataError(f"{path} is a folder, not an image: give detrex.predict.find_files('{path}')")
    return path


def _from_bytes(content: bytes, index: int, value_range: ValueRange) -> Tensor:
    if not isinstance(content, bytes):
        raise TypeError(f"image {index} is a file opened as text: open it in binary mode ('rb')")
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except _DECODING_ERRORS as error:
        raise DataError(f"image {index}, of {len(content)} bytes, cannot be decoded ({error})") from error
    return _from_pil(image, index, value_range)


def _from_pil(image: Image.Image, index: int, value_range: ValueRange) -> Tensor:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
        # PIL returns some files of 16 bits a channel as "I": 32 bits, of which 16 are used.
        deep = np.asarray(upright)
        if upright.mode == "F" or deep.min() < 0 or deep.max() > _HIGHEST_OF_16_BITS:
            raise ValueError(
                f"image {index} is a PIL image of 32 bits a channel (mode {upright.mode}), whose range of "
                "values is not known: convert it to 8 or 16 bits"
            )
        return _from_array(deep.astype(np.uint16), index, value_range)
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return torch.from_numpy(np.array(upright.convert("RGB"))).permute(2, 0, 1).contiguous()


def _from_array(array: np.ndarray, index: int, value_range: ValueRange) -> Tensor:
    known = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype not in (np.uint8, np.uint16) or not known:
        raise ValueError(
            f"image {index} is an array of shape {array.shape} and type {array.dtype}; an image may be "
            f"{_KINDS}"
        )
    if array.dtype == np.uint16:
        array = from_16_bits(array, value_range)
    rgb = array[..., :3] if array.ndim == 3 else array[..., None].repeat(3, -1)
    return torch.from_numpy(np.array(rgb.transpose(2, 0, 1), order="C"))


def _from_tensor(tensor: Tensor, index: int, value_range: ValueRange) -> Tensor:
    known = tensor.dtype in (torch.uint8, torch.uint16) or tensor.is_floating_point()
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4) or not known:
        raise ValueError(
            f"image {index} is a tensor of shape {tuple(tensor.shape)} and type {tensor.dtype}; an image may "
            f"be {_KINDS}"
        )
    if tensor.dtype == torch.uint16:
        tensor = torch.from_numpy(from_16_bits(tensor.cpu().numpy(), value_range)).to(tensor.device)
    tensor = tensor.detach()[:3].expand(3, -1, -1).clone(memory_format=torch.contiguous_format)
    if tensor.is_floating_point() and tensor.numel():
        low, high = tensor.aminmax()
        _check_range(float(low), float(high), index)
        tensor = tensor.float()
    return tensor


def _check_range(low: float, high: float, index: int) -> None:
    if not (low >= 0 and high <= 255):
        raise ValueError(
            f"image {index} has values from {low:.4g} to {high:.4g}; a float tensor is expected in 0..255, "
            "not normalised: the model does that"
        )
    if 0 < high <= 1:
        logger.warning("image %d has no value above 1; images are expected in 0..255, not in 0..1", index)
