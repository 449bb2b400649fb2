"""Geometric augmentations as torchvision v2 transforms, for images, masks and boxes together.

Each draws a region of the image and the size it gets, and then crops before it resizes: the result is that of
resizing first, to within a pixel of the source, at a fraction of the cost for images with many masks.

Random numbers come from torch's global generator, as in torchvision; the loaders seed it for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F


class Region(NamedTuple):
    """A rectangle of an image in pixels."""

    top: int
    left: int
    height: int
    width: int


class RegionResize(v2.Transform):
    """Takes a region of the image to a new size, then pads on the right and below.

    Images are interpolated bilinearly with anti-aliasing; masks take the nearest pixel by pixel centres, so
    that they are not shifted against the image; boxes are clipped to the region. Subclasses draw
    ``region``, ``size`` (height, width) and ``canvas`` (height, width, at least ``size``).
    """

    def __init__(self, pad_value: float | Sequence[float] = 0):
        super().__init__()
        self.pad_value = pad_value if isinstance(pad_value, int | float) else list(pad_value)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        region, size, (height, width) = params["region"], list(params["size"]), params["canvas"]
        padding = [0, 0, width - size[1], height - size[0]]  # left, top, right, bottom
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.Mask(F.pad(_resize_masks(inpt, region, size), padding))
        out = F.resized_crop(inpt, *region, size, antialias=True)
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            out = F.clamp_bounding_boxes(out)
        return F.pad(out, padding, fill=self.pad_value) if any(padding) else out


class LargeScaleJitter(RegionResize):
    """Large-scale jitter (arXiv 2012.07177): a random scale, then a random crop, padded to a fixed size.

    At scale 1 the image just fits into ``size``.

    Args:
        size: (height, width) of the result in pixels.
        min_scale, max_scale: the scale is drawn uniformly between them.
        pad_value: of the padding, one number or one for each channel, in 0..255.
    """

    def __init__(
        self,
        size: tuple[int, int],
        min_scale: float = 0.1,
        max_scale: float = 2.0,
        pad_value: float | Sequence[float] = 128,
    ):
        super().__init__(pad_value)
        if not 0 < min_scale <= max_scale:
            raise ValueError(f"scales from {min_scale} to {max_scale}: needed is 0 < min_scale <= max_scale")
        self.size, self.min_scale, self.max_scale = tuple(size), min_scale, max_scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(_image(flat_inputs))
        scale = self.min_scale + float(torch.rand(())) * (self.max_scale - self.min_scale)
        scale *= min(self.size[0] / height, self.size[1] / width)
        scaled = (max(1, round(height * scale)), max(1, round(width * scale)))
        size = (min(scaled[0], self.size[0]), min(scaled[1], self.size[1]))
        region = _random_region((height, width), (size[0] / scaled[0], size[1] / scaled[1]))
        return {"region": region, "size": size, "canvas": self.size}


class RandomShortestSide(RegionResize):
    """Resizes so that the shorter side gets a random one of ``sizes``, as DETR does (arXiv 2005.12872).

    With ``crop_probability``, a random part is cut out first: of an image whose shorter side is a random one
    of ``crop_base_sizes`` pixels, a rectangle with sides of ``crop_range`` pixels each.

    Args:
        sizes: lengths of the shorter side in pixels.
        max_size: the longer side gets no longer than this many pixels; the shorter one is then smaller.
        crop_probability: how often to crop.
        crop_base_sizes, crop_range: see above.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        max_size: int,
        crop_probability: float = 0.0,
        crop_base_sizes: Sequence[int] = (400, 500, 600),
        crop_range: tuple[int, int] = (384, 600),
    ):
        super().__init__()
        _check_sizes(sizes)
        self.sizes, self.max_size = list(sizes), max_size
        self.crop_probability = crop_probability
        self.crop_base_sizes, self.crop_range = list(crop_base_sizes), tuple(crop_range)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(_image(flat_inputs))
        region = Region(0, 0, height, width)
        if float(torch.rand(())) < self.crop_probability:
            base = _choice(self.crop_base_sizes) / min(height, width)
            low, high = self.crop_range
            sides = (int(torch.randint(low, high + 1, ())) for _ in range(2))
            fractions = tuple(
                min(1.0, side / (base * full)) for side, full in zip(sides, (height, width), strict=True)
            )
            region = _random_region((height, width), fractions)
        size = shortest_side_size(region.height, region.width, _choice(self.sizes), self.max_size)
        return {"region": region, "size": size, "canvas": size}


class RandomScaleCrop(RegionResize):
    """Resizes to a random shorter side, then cuts out a random rectangle: usual in semantic segmentation.

    Crops that are nearly all of one class teach little: where a mask covers more than ``max_class_share`` of
    what the masks cover together, another crop is drawn, ten at most.

    Args:
        sizes: lengths of the shorter side in pixels, one of which is chosen.
        max_size: the longer side gets no longer than this many pixels; the shorter one is then smaller.
        crop_size: (height, width) of the result in pixels; smaller images are padded to it.
        max_class_share: see above, over 0; 1 takes every crop. Masks are to be regions of classes.
        pad_value: of the padding, one number or one for each channel, in 0..255.

    Raises:
        ValueError: there are no sizes, or the share is not in (0, 1].
    """

    def __init__(
        self,
        sizes: Sequence[int],
        max_size: int,
        crop_size: tuple[int, int],
        max_class_share: float = 1.0,
        pad_value: float | Sequence[float] = 128,
    ):
        super().__init__(pad_value)
        _check_sizes(sizes)
        if not 0 < max_class_share <= 1:
            raise ValueError(f"max_class_share={max_class_share}: needed is a number over 0, up to 1")
        self.sizes, self.max_size, self.crop_size = list(sizes), max_size, tuple(crop_size)
        self.max_class_share = max_class_share

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        full = v2.functional.get_size(_image(flat_inputs))
        scaled = shortest_side_size(*full, _choice(self.sizes), self.max_size)
        size = tuple(min(pair) for pair in zip(scaled, self.crop_size, strict=True))
        fractions = (size[0] / scaled[0], size[1] / scaled[1])
        masks = next((i for i in flat_inputs if isinstance(i, tv_tensors.Mask)), None)
        region = _random_region(full, fractions)
        for _ in range(9):
            if masks is None or self._is_mixed(masks, region):
                break
            region = _random_region(full, fractions)
        return {"region": region, "size": size, "canvas": self.crop_size}

    def _is_mixed(self, masks: Tensor, region: Region) -> bool:
        if self.max_class_share == 1:
            return True
        areas = _crop(masks, region).flatten(1).sum(1)
        return bool((areas <= self.max_class_share * areas.sum()).all())


def shortest_side_size(height: int, width: int, size: int, max_size: int) -> tuple[int, int]:
    """(height, width) with the shorter side ``size``, or less if the longer one would exceed ``max_size``."""
    scale = min(size / min(height, width), max_size / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _random_region(full: tuple[int, int], fractions: tuple[float, float]) -> Region:
    """A rectangle that is the given ``fractions`` of height and width, anywhere in the image."""
    sides = [max(1, round(side * fraction)) for side, fraction in zip(full, fractions, strict=True)]
    offsets = [int(torch.randint(side - part + 1, ())) for side, part in zip(full, sides, strict=True)]
    return Region(*offsets, *sides)


def _resize_masks(masks: Tensor, region: Region, size: list[int]) -> Tensor:
    """(N, H, W) bool to (N, *size)."""
    part = _crop(masks, region)
    if list(part.shape[-2:]) == size:
        return part
    # Interpolation knows no booleans; a view as bytes costs nothing.
    resized = F.resize(
        part.contiguous().view(torch.uint8), size, interpolation=InterpolationMode.NEAREST_EXACT
    )
    return resized.view(torch.bool)


def _crop(masks: Tensor, region: Region) -> Tensor:
    top, left, height, width = region
    return masks.as_subclass(Tensor)[..., top : top + height, left : left + width]


def _check_sizes(sizes: Sequence[int]) -> None:
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes={list(sizes)}: at least one length in pixels is needed")


def _image(flat_inputs: list[Any]) -> Any:
    return next((i for i in flat_inputs if isinstance(i, tv_tensors.Image)), flat_inputs[0])


def _choice(values: Sequence[int]) -> int:
    return values[int(torch.randint(len(values), ()))]
