"""Mappers turn a data set's record into a model's sample: augmented for training, resized for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from detrex.data.image_dataset import Record
from detrex.data.transforms import LargeScaleJitter, RandomScaleCrop, RandomShortestSide, shortest_side_size
from detrex.structures import Sample, Targets, boxes_from_masks


class TrainingMapper:
    """Applies torchvision v2 transforms to image, masks and boxes together.

    Objects of which nothing is left are dropped, and boxes are drawn anew around what the masks show.

    Args:
        transforms: applied to a dictionary of ``image`` (``tv_tensors.Image``) and ``masks``
            (``tv_tensors.Mask``, (N, H, W) bool) or, in data without masks, ``boxes``
            (``tv_tensors.BoundingBoxes``).
    """

    def __init__(self, transforms: Callable[[dict[str, Any]], dict[str, Any]]):
        self.transforms = transforms

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
            targets=_follow(targets, shapes),
        )


def _follow(targets: Targets, shapes: dict[str, Any]) -> Targets:
    """``targets`` with the augmented masks or boxes, without the objects that are gone."""
    if targets.masks is not None:
        masks = _plain(shapes["masks"])
        visible = masks.flatten(1).any(1)
        masks = masks[visible]
        boxes = boxes_from_masks(masks, inclusive=False)
    else:
        masks, boxes = None, _plain(shapes["boxes"])
        visible = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes = boxes[visible]
    return Targets(targets.labels[visible], boxes, masks, targets.is_thing[visible])


class DetrMapper(TrainingMapper):
    """DETR's augmentation (arXiv 2005.12872): random shorter side, random crop, random flip.

    Args:
        sizes: lengths of the shorter side in pixels, one of which is chosen.
        max_size: the longer side gets no longer than this many pixels.
        crop_probability, crop_base_sizes, crop_range: how often and how much is cut out first; see
            :class:`detrex.data.transforms.RandomShortestSide`.
        flip_probability: of the horizontal flip.
        color_jitter: a torchvision transform that changes colours, or None.
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
    ):
        resize = RandomShortestSide(sizes, max_size, crop_probability, crop_base_sizes, crop_range)
        super().__init__(_compose(color_jitter, resize, flip_probability))


class LargeScaleJitterMapper(TrainingMapper):
    """Large-scale jitter to a fixed size, and random flip, as published for COCO with Mask DINO.

    Args:
        image_size: height and width of the result in pixels; one number if they are the same.
        min_scale, max_scale: range of the scale; at 1 the image just fits.
        flip_probability: of the horizontal flip.
        pad_value: colour of the padding in 0..255, one number or one for each channel.
        color_jitter: a torchvision transform that changes colours, or None.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 1024,
        min_scale: float = 0.1,
        max_scale: float = 2.0,
        flip_probability: float = 0.5,
        pad_value: float | Sequence[float] = 128,
        color_jitter: Callable | None = None,
    ):
        resize = LargeScaleJitter(_both_sides(image_size), min_scale, max_scale, pad_value)
        super().__init__(_compose(color_jitter, resize, flip_probability))


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
    ):
        crop = RandomScaleCrop(sizes, max_size, _both_sides(crop_size), max_class_share, pad_value)
        super().__init__(_compose(color_jitter, crop, flip_probability))


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


def _compose(color_jitter: Callable | None, resize: v2.Transform, flip_probability: float) -> v2.Compose:
    # First of all the flip, so that padding is always on the right, and colours before there is padding.
    steps = [v2.RandomHorizontalFlip(flip_probability), resize]
    return v2.Compose(steps if color_jitter is None else [color_jitter, *steps])


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(torch.Tensor)
