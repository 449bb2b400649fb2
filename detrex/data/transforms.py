"""Augmentations as torchvision v2 transforms, for images, masks and boxes together.

The geometric ones choose a region of the image and its new size, and then crop before they resize: up to a
pixel of the source, the result is the same as with resizing first, at a fraction of the cost for images with
many masks.

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

from detrex.data.outlines import Points


class Region(NamedTuple):
    """A rectangle of an image in pixels."""

    top: int
    left: int
    height: int
    width: int


class RegionResize(v2.Transform):
    """Resizes a region of the image to a new size.

    Images are interpolated bilinearly with anti-aliasing; masks take the nearest pixel by pixel centres, so
    that they are not shifted against the image; boxes are clipped to the region; points are exact. Subclasses
    choose ``region`` and ``size`` (height, width).
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        region, size = params["region"], list(params["size"])
        if isinstance(inpt, Points):
            return _move_points(inpt, region, params["size"])
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.Mask(_resize_masks(inpt, region, size))
        out = F.resized_crop(inpt, *region, size, antialias=True)
        return F.clamp_bounding_boxes(out) if isinstance(inpt, tv_tensors.BoundingBoxes) else out


class PadToSize(v2.Transform):
    """Pads on the right and below.

    Args:
        size: (height, width) of the result in pixels, at least the image's size.
        value: of the padding, one number or one for each channel, in 0..255. Masks are padded with False.
    """

    def __init__(self, size: tuple[int, int], value: float | Sequence[float] = 128):
        super().__init__()
        self.size = (size[0], size[1])
        self.value = value if isinstance(value, int | float) else list(value)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = _size(flat_inputs)
        return {"padding": [0, 0, self.size[1] - width, self.size[0] - height]}  # left, top, right, bottom

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, Points):
            return Points.on_canvas(inpt.as_subclass(Tensor), self.size)
        if not any(params["padding"]):
            return inpt
        fill = 0 if isinstance(inpt, tv_tensors.Mask) else self.value
        return F.pad(inpt, params["padding"], fill=fill)


class PhotometricDistortion(v2.Transform):
    """Random colours as in SSD (arXiv 1512.02325), with which the published semantic models were trained.

    Brightness, contrast, saturation and hue each change with a probability of one half, in this order or with
    contrast last. Values stay in 0..255 after each change.

    Args:
        brightness: the largest number that is added to all values or subtracted from them.
        contrast: range of the factor on all values.
        saturation: range of the factor on the saturation (of hue, saturation and value).
        hue: the largest rotation in degrees, in either direction.
    """

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: float = 36.0,
    ):
        super().__init__()
        self.brightness, self.hue = brightness, hue
        self.contrast, self.saturation = tuple(contrast), tuple(saturation)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002
        ranges = {
            "brightness": (-self.brightness, self.brightness),
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": (-self.hue, self.hue),
        }
        drawn = {name: _uniform(*ends) for name, ends in ranges.items() if _happens(0.5)}
        if "contrast" in drawn and _happens(0.5):
            drawn["contrast"] = drawn.pop("contrast")
        return drawn

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image) or not params:
            return inpt
        pixels = inpt.as_subclass(Tensor).float()  # (3, H, W)
        for name, amount in params.items():
            if name == "brightness":
                pixels = pixels + amount
            elif name == "contrast":
                pixels = pixels * amount
            elif name == "saturation":
                pixels = _scale_saturation(pixels, amount)
            else:
                pixels = F.adjust_hue(pixels / 255, amount / 360) * 255
            pixels = pixels.clamp(0, 255)
        return tv_tensors.Image(pixels if inpt.is_floating_point() else pixels.round().to(inpt.dtype))


class LargeScaleJitter(RegionResize):
    """Large-scale jitter (arXiv 2012.07177): a random scale, then a random crop to at most a given size.

    At scale 1, the image just fits into ``size``.

    Args:
        size: (height, width) in pixels; smaller results are to be padded by :class:`PadToSize`.
        min_scale, max_scale: the scale is drawn uniformly between them.
    """

    def __init__(self, size: tuple[int, int], min_scale: float = 0.1, max_scale: float = 2.0):
        super().__init__()
        if not 0 < min_scale <= max_scale:
            raise ValueError(f"scales from {min_scale} to {max_scale}: needed is 0 < min_scale <= max_scale")
        self.size, self.min_scale, self.max_scale = tuple(size), min_scale, max_scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = _size(flat_inputs)
        scale = _uniform(self.min_scale, self.max_scale)
        scale *= min(self.size[0] / height, self.size[1] / width)
        scaled = (max(1, round(height * scale)), max(1, round(width * scale)))
        size = (min(scaled[0], self.size[0]), min(scaled[1], self.size[1]))
        region = _random_region((height, width), (size[0] / scaled[0], size[1] / scaled[1]))
        return {"region": region, "size": size}


class RandomShortestSide(RegionResize):
    """Resizes the shorter side to a random one of ``sizes``, as DETR does (arXiv 2005.12872).

    With ``crop_probability``, a random part is cut out first: the shorter side is resized to a random one of
    ``crop_base_sizes`` pixels, and a rectangle is cropped whose sides are drawn from ``crop_range`` pixels.

    Args:
        sizes: lengths of the shorter side in pixels.
        max_size: the longer side gets no longer than this many pixels; the shorter one is then smaller.
        crop_probability: probability of a crop.
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
        height, width = _size(flat_inputs)
        region = Region(0, 0, height, width)
        if _happens(self.crop_probability):
            base = _choice(self.crop_base_sizes) / min(height, width)
            low, high = self.crop_range
            part_height, part_width = (int(torch.randint(low, high + 1, ())) for _ in range(2))
            fractions = (min(1.0, part_height / (base * height)), min(1.0, part_width / (base * width)))
            region = _random_region((height, width), fractions)
        size = shortest_side_size(region.height, region.width, _choice(self.sizes), self.max_size)
        return {"region": region, "size": size}


class RandomTile(RegionResize):
    """Cuts a square out of a large picture.

    Args:
        size: height and width of the result in pixels; less if the picture is smaller than a tile.
        min_scale, max_scale: the scale is drawn uniformly between them; at 2, the picture is magnified twice,
            and a tile shows ``size / 2`` of its pixels.
        object_probability: probability that a point of a random object is in the middle half of the tile, if
            the edge of the picture allows that; otherwise, the tile lies anywhere.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self, size: int, min_scale: float = 1.0, max_scale: float = 1.0, object_probability: float = 0.8
    ):
        super().__init__()
        if size < 1:
            raise ValueError(f"tiles of {size} pixels: needed is at least 1")
        if not 0 < min_scale <= max_scale:
            raise ValueError(f"scales from {min_scale} to {max_scale}: needed is 0 < min_scale <= max_scale")
        if not 0 <= object_probability <= 1:
            raise ValueError(f"object_probability={object_probability}: needed is a number from 0 to 1")
        self.size, self.min_scale, self.max_scale = size, min_scale, max_scale
        self.object_probability = object_probability

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        full = _size(flat_inputs)
        scale = _uniform(self.min_scale, self.max_scale)
        part = max(1, round(self.size / scale))
        height, width = min(part, full[0]), min(part, full[1])
        place = _random_place(flat_inputs, full) if _happens(self.object_probability) else None
        region = _random_region(full, (height / full[0], width / full[1]))
        if place is not None:
            top, left = (
                min(max(0, at - int(torch.randint(side // 4, side - side // 4, ()))), length - side)
                for at, side, length in zip(place, (height, width), full, strict=True)
            )
            region = Region(top, left, height, width)
        size = min(self.size, max(1, round(height * scale))), min(self.size, max(1, round(width * scale)))
        return {"region": region, "size": size}


class RandomScaleCrop(RegionResize):
    """Resizes to a random shorter side, then crops a random rectangle, as is usual in semantic segmentation.

    Crops that consist almost entirely of one class teach little: if a mask covers more than
    ``max_class_share`` of the area of all masks, another crop is drawn, at most ten times.

    Args:
        sizes: lengths of the shorter side in pixels, one of which is chosen.
        max_size: the longer side gets no longer than this many pixels; the shorter one is then smaller.
        crop_size: (height, width) of the rectangle in pixels; smaller results are to be padded by
            :class:`PadToSize`.
        max_class_share: see above, more than 0; 1 accepts every crop. Masks have to be regions of classes.

    Raises:
        ValueError: there are no sizes, or the share is not in (0, 1].
    """

    def __init__(
        self,
        sizes: Sequence[int],
        max_size: int,
        crop_size: tuple[int, int],
        max_class_share: float = 1.0,
    ):
        super().__init__()
        _check_sizes(sizes)
        if not 0 < max_class_share <= 1:
            raise ValueError(f"max_class_share={max_class_share}: needed is a number over 0, up to 1")
        self.sizes, self.max_size, self.crop_size = list(sizes), max_size, tuple(crop_size)
        self.max_class_share = max_class_share

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        full = _size(flat_inputs)
        scaled = shortest_side_size(*full, _choice(self.sizes), self.max_size)
        size = (min(scaled[0], self.crop_size[0]), min(scaled[1], self.crop_size[1]))
        fractions = (size[0] / scaled[0], size[1] / scaled[1])
        masks = next((i for i in flat_inputs if isinstance(i, tv_tensors.Mask)), None)
        region = _random_region(full, fractions)
        for _ in range(9):
            if masks is None or self._is_mixed(masks, region):
                break
            region = _random_region(full, fractions)
        return {"region": region, "size": size}

    def _is_mixed(self, masks: Tensor, region: Region) -> bool:
        if self.max_class_share == 1:
            return True
        areas = _crop(masks, region).flatten(1).sum(1)
        return bool((areas <= self.max_class_share * areas.sum()).all())


def shortest_side_size(height: int, width: int, size: int, max_size: int) -> tuple[int, int]:
    """(height, width) with the shorter side ``size``, or less if the longer one would exceed ``max_size``."""
    scale = min(size / min(height, width), max_size / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _random_place(flat_inputs: list[Any], full: tuple[int, int]) -> tuple[int, int] | None:
    """Row and column of a pixel of a random object; None if no object is in the image."""
    for shapes in flat_inputs:
        if not isinstance(shapes, Points | tv_tensors.Mask | tv_tensors.BoundingBoxes) or not len(shapes):
            continue
        plain = shapes.as_subclass(Tensor)
        chosen = plain[_choice(range(len(plain)))]
        if isinstance(shapes, tv_tensors.Mask):
            pixels = chosen.nonzero()
            if not len(pixels):
                continue
            row, column = pixels[_choice(range(len(pixels)))].tolist()
        elif isinstance(shapes, Points):
            column, row = chosen.tolist()
        else:
            column, row = ((chosen[:2] + chosen[2:]) / 2).tolist()
        if 0 <= row < full[0] and 0 <= column < full[1]:
            return int(row), int(column)
    return None


def _random_region(full: tuple[int, int], fractions: tuple[float, float]) -> Region:
    """A rectangle with the given ``fractions`` of height and width, anywhere in the image."""
    sides = [max(1, round(side * fraction)) for side, fraction in zip(full, fractions, strict=True)]
    offsets = [int(torch.randint(side - part + 1, ())) for side, part in zip(full, sides, strict=True)]
    return Region(*offsets, *sides)


def _resize_masks(masks: Tensor, region: Region, size: list[int]) -> Tensor:
    """Resizes masks (N, H, W) bool to (N, *size)."""
    part = _crop(masks, region)
    if list(part.shape[-2:]) == size:
        return part
    # Interpolation does not take booleans; a view as bytes costs nothing.
    resized = F.resize(
        part.contiguous().view(torch.uint8), size, interpolation=InterpolationMode.NEAREST_EXACT
    )
    return resized.view(torch.bool)


def _move_points(points: Points, region: Region, size: tuple[int, int]) -> Points:
    moved = points.as_subclass(Tensor) - points.new_tensor([region.left, region.top])
    return Points.on_canvas(moved * moved.new_tensor([size[1] / region.width, size[0] / region.height]), size)


def _crop(masks: Tensor, region: Region) -> Tensor:
    top, left, height, width = region
    return masks.as_subclass(Tensor)[..., top : top + height, left : left + width]


def _check_sizes(sizes: Sequence[int]) -> None:
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes={list(sizes)}: at least one length in pixels is needed")


def _size(flat_inputs: list[Any]) -> tuple[int, int]:
    """(height, width) of the image, or of the first input if there is no image."""
    image = next((i for i in flat_inputs if isinstance(i, tv_tensors.Image)), flat_inputs[0])
    height, width = F.get_size(image)
    return height, width


def _scale_saturation(pixels: Tensor, factor: float) -> Tensor:
    """Multiplies the saturation of (3, H, W) by ``factor``, up to 1; hue and value stay.

    With value v, a channel c of a colour lies v * saturation * (a share by hue) below v.
    """
    value, least = pixels.amax(0), pixels.amin(0)  # (H, W)
    most = value / (value - least).clamp(min=torch.finfo(pixels.dtype).tiny)
    return value - (value - pixels) * most.clamp(max=factor)


def _happens(probability: float) -> bool:
    return float(torch.rand(())) < probability


def _uniform(low: float, high: float) -> float:
    return low + float(torch.rand(())) * (high - low)


def _choice(values: Sequence[int]) -> int:
    return values[int(torch.randint(len(values), ()))]
