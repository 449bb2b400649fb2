"""Mappers turn a data set's record into a model's sample: augmented for training, resized for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from detrex.data.image_dataset import Record
from detrex.data.transforms import (
    LargeScaleJitter,
    PadToSize,
    RandomScaleCrop,
    RandomShortestSide,
    shortest_side_size,
)
from detrex.structures import Sample, Targets, boxes_from_masks


class TrainingMapper:
    """Applies torchvision v2 transforms to image, masks and boxes together.

    Boxes are drawn anew around what the masks show. Objects of which nothing is left are dropped, or else
    stay with an empty mask and a box of zeros.

    Args:
        transforms: applied to a dictionary of ``image`` (``tv_tensors.Image``) and ``masks``
            (``tv_tensors.Mask``, (N, H, W) bool) or, in data without masks, ``boxes``
            (``tv_tensors.BoundingBoxes``).
        drop_invisible: whether objects of which nothing is left are dropped.
    """

    def __init__(self, transforms: Callable[[dict[str, Any]], dict[str, Any]], drop_invisible: bool = True):
        self.transforms, self.drop_invisible = transforms, drop_invisible

    def __call__(self, record: Record) -> Sample:
        """The sample; ``height`` and ``width`` are those of the augmented image."""
        targets = record["targets"]
        shapes: dict[str, Any] = {"image": record["image"]}
        if targets.masks is not None:
            shapes["masks"] = tv_tensors.Mask(targets.masks)
        else:
            canvas = (record["height"], record["width"])
            shapes["boxes"] = tv_tensors.BoundingBoxes(targets.boxes, format="XYXY", canvas_size=canvas)
        shapes = self.transforms(shapes)
        image = _plain(shapes["image"])
        return Sample(
            image=image,
            image_id=record["image_id"],
            file_name=record["file_name"],
            height=image.shape[-2],
            width=image.shape[-1],
            targets=self._follow(targets, shapes),
        )

    def _follow(self, targets: Targets, shapes: dict[str, Any]) -> Targets:
        """``targets`` with the augmented masks or boxes."""
        if targets.masks is not None:
            masks = _plain(shapes["masks"])
            visible = masks.flatten(1).any(1)
            boxes = boxes_from_masks(masks, inclusive=False)
        else:
            masks, boxes = None, _plain(shapes["boxes"])
            visible = (boxes[:, 2:] > boxes[:, :2]).all(1)
            boxes = boxes * visible[:, None]
        if not self.drop_invisible:
            return Targets(targets.labels, boxes, masks, targets.is_thing)
        return Targets(
            targets.labels[visible],
            boxes[visible],
            None if masks is None else masks[visible],
            targets.is_thing[visible],
        )


class DetrMapper(TrainingMapper):
    """DETR's augmentation (arXiv 2005.12872): random shorter side, random crop, random flip.

    Args:
        sizes: lengths of the shorter side in pixels, one of which is chosen.
        max_size: the longer side gets no longer than this many pixels.
        crop_probability, crop_base_sizes, crop_range: how often and how much is cut out first; see
            :class:`detrex.data.transforms.RandomShortestSide`.
        flip_probability: of the horizontal flip.
        color_jitter: a torchvision transform that changes colours, or None.
        drop_invisible: see :class:`TrainingMapper`.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        max_size: int = 1333,
        crop_probability: float = 0.5,
        crop_base_sizes: Sequence[int] = (400, 500, 600),
        crop_range: tuple[int, int] = (384, 600),
        flip_probability: float = 0.5,
        color_jitter: Callable | None = None,
        drop_invisible: bool = True,
    ):
        resize = RandomShortestSide(sizes, max_size, crop_probability, crop_base_sizes, crop_range)
        super().__init__(_compose(flip_probability, resize, color_jitter), drop_invisible)


class LargeScaleJitterMapper(TrainingMapper):
    """Large-scale jitter to a fixed size, and random flip, as published for COCO with Mask DINO.

    Args:
        image_size: height and width of the result in pixels; one number if they are the same.
        min_scale, max_scale: range of the scale; at 1 the image just fits.
        flip_probability: of the horizontal flip.
        pad_value: colour of the padding in 0..255, one number or one for each channel.
        color_jitter: a torchvision transform that changes colours, or None.
        drop_invisible: see :class:`TrainingMapper`.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 1024,
        min_scale: float = 0.1,
        max_scale: float = 2.0,
        flip_probability: float = 0.5,
        pad_value: float | Sequence[float] = 128,
        color_jitter: Callable | None = None,
        drop_invisible: bool = True,
    ):
        size = _both_sides(image_size)
        resize = LargeScaleJitter(size, min_scale, max_scale)
        pad = PadToSize(size, pad_value)
        super().__init__(_compose(flip_probability, resize, color_jitter, pad), drop_invisible)


class SemanticMapper(TrainingMapper):
    """Random scale, crop and flip, as published for the semantic models of Mask DINO.

    Args:
        sizes: lengths of the shorter side in pixels, one of which is chosen.
        max_size: the longer side gets no longer than this many pixels.
        crop_size: height and width of the result in pixels; one number if they are the same.
        max_class_share: see :class:`detrex.data.RandomScaleCrop`.
        flip_probability: of the horizontal flip.
        pad_value: colour of the padding in 0..255, one number or one for each channel.
        color_jitter: a torchvision transform that changes colours, or None.
        drop_invisible: see :class:`TrainingMapper`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        max_size: int = 2048,
        crop_size: int | tuple[int, int] = 512,
        max_class_share: float = 1.0,
        flip_probability: float = 0.5,
        pad_value: float | Sequence[float] = 128,
        color_jitter: Callable | None = None,
        drop_invisible: bool = True,
    ):
        size = _both_sides(crop_size)
        crop = RandomScaleCrop(sizes, max_size, size, max_class_share)
        pad = PadToSize(size, pad_value)
        super().__init__(_compose(flip_probability, crop, color_jitter, pad), drop_invisible)


class EvalMapper:
    """Resizes the image for evaluation; results are wanted at its original size.

    Args:
        size: length of the shorter side in pixels.
        max_size: the longer side gets no longer than this many pixels.
    """

    def __init__(self, size: int = 800, max_size: int = 1333):
        self.size, self.max_size = size, max_size

    def __call__(self, record: Record) -> Sample:
        """The sample, without targets; ``height`` and ``width`` are those of the original image."""
        size = shortest_side_size(record["height"], record["width"], self.size, self.max_size)
        return Sample(
            image=_plain(v2.functional.resize(record["image"], list(size), antialias=True)),
            image_id=record["image_id"],
            file_name=record["file_name"],
            height=record["height"],
            width=record["width"],
        )


def _both_sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _compose(flip_probability: float, resize: v2.Transform, *more: Callable | None) -> v2.Compose:
    # The flip comes first, so that padding is on the right. Colours change after the crop, which is smaller
    # than the image, and before there is padding.
    steps = [v2.RandomHorizontalFlip(flip_probability), resize, *more]
    return v2.Compose([step for step in steps if step is not None])


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(torch.Tensor)
