"""What may be given as an image, made into a record as of a data set."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors

from detrex.data import DataError, Record
from detrex.data.image_io import read_image
from detrex.structures import Targets

logger = logging.getLogger(__name__)

ImageInput = str | Path | Image.Image | np.ndarray | Tensor

_KINDS = (
    "a path, a PIL image, a uint8 array (H, W, 3) in RGB or (H, W) in grey, or a tensor (3, H, W) in RGB, "
    "uint8 or float in 0..255"
)
_DEEP = ("I", "F")


def to_record(image: ImageInput, index: int) -> Record:
    """A record without targets.

    Args:
        image: path of a file; PIL image (turned as its EXIF orientation says); array of uint8, (H, W, 3) in
            **RGB** (OpenCV's is BGR: give ``array[..., ::-1]``) or (H, W) in grey; tensor (3, H, W) in RGB,
            uint8 or float in 0..255, on any device. Pixels are copied.
        index: its number in the list, which becomes the record's ``image_id``.

    Raises:
        DataError: a file cannot be read.
        ValueError, TypeError: of another shape, range or type.
    """
    pixels = _pixels(image, index)
    if 0 in pixels.shape:
        raise ValueError(f"image {index} is empty, of shape {tuple(pixels.shape)}")
    height, width = pixels.shape[1:]
    return Record(
        image=tv_tensors.Image(pixels),
        image_id=index,
        file_name=str(image) if isinstance(image, str | Path) else "",
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


def _pixels(image: ImageInput, index: int) -> Tensor:
    if isinstance(image, str) and image.split("://")[0] in ("http", "https"):
        raise ValueError(f"{image} is an address: download the image and give the path of the file")
    if isinstance(image, str | Path):
        return _from_file(Path(image))
    if isinstance(image, Image.Image):
        return _from_pil(image, index)
    if isinstance(image, np.ndarray):
        return _from_array(image, index)
    if isinstance(image, Tensor):
        return _from_tensor(image, index)
    raise TypeError(f"image {index} is of type {type(image).__name__}; an image may be {_KINDS}")


def _from_file(path: Path) -> Tensor:
    if path.is_dir():
        raise DataError(f"{path} is a folder, not an image: give detrex.predict.find_files('{path}')")
    return read_image(path)


def _from_pil(image: Image.Image, index: int) -> Tensor:
    if image.mode.split(";")[0] in _DEEP:
        raise ValueError(
            f"image {index} is a PIL image of mode {image.mode}, more than 8 bits a channel: give the path "
            "of its file, or convert it to 8 bits"
        )
    upright = ImageOps.exif_transpose(image)
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return torch.from_numpy(np.array(upright.convert("RGB"))).permute(2, 0, 1).contiguous()


def _from_array(array: np.ndarray, index: int) -> Tensor:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(
            f"image {index} is an array of shape {array.shape} and type {array.dtype}; an image may be "
            f"{_KINDS}"
        )
    rgb = array if array.ndim == 3 else array[..., None].repeat(3, -1)
    return torch.from_numpy(np.array(rgb.transpose(2, 0, 1), order="C"))


def _from_tensor(tensor: Tensor, index: int) -> Tensor:
    known = tensor.dtype == torch.uint8 or tensor.is_floating_point()
    if tensor.ndim != 3 or tensor.shape[0] != 3 or not known:
        raise ValueError(
            f"image {index} is a tensor of shape {tuple(tensor.shape)} and type {tensor.dtype}; an image may "
            f"be {_KINDS}"
        )
    tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
    if tensor.is_floating_point() and tensor.numel():
        _check_range(*(float(v) for v in tensor.aminmax()), index)
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
