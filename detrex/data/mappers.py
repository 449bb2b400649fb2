"""Mappers turn a data set's record into a model's sample: augmented for training, resized for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from detrex.data.coco.segmentation import Segmentation, rasterise
from detrex.data.errors import DataError
from detrex.data.image_dataset import Record
from detrex.data.outlines import Points, draw, visible_boxes
from detrex.data.transforms import (
    LargeScaleJitter,
    PadToSize,
    RandomScaleCrop,
    RandomShortestSide,
    RandomTile,
    shortest_side_size,
)
from detrex.structures import Prompts, Sample, Targets, boxes_from_masks
from detrex.structures.prompts import POINT


class TrainingMapper:
    """Applies torchvision v2 transforms to image, masks and boxes together.

    Objects of which nothing is left are dropped, or stay with an empty mask and a box of zeros. Boxes are
    drawn anew around the visible parts of masks or, if ``transforms`` move polygons, of polygons, from which
    masks are then drawn.

    Args:
        transforms: applied to a dictionary of ``image`` (``tv_tensors.Image``) and ``masks``
            (``tv_tensors.Mask``, (N, H, W) bool) or, in data without masks, ``boxes``
            (``tv_tensors.BoundingBoxes``).
        drop_invisible: whether to drop objects of which nothing is left.
        move_polygons: whether ``transforms`` get the points of polygons as ``points``
            (:class:`~detrex.data.outlines.Points`, which lists the transforms that move them), instead of
            masks drawn from the polygons.
    """

    def __init__(
        self,
        transforms: Callable[[dict[str, Any]], dict[str, Any]],
        drop_invisible: bool = True,
        move_polygons: bool = False,
    ):
        self.transforms, self.drop_invisible, self.move_polygons = transforms, drop_invisible, move_polygons

    def __call__(self, record: Record) -> Sample:
        """The sample; ``height`` and ``width`` are those of the augmented image."""
        annotations = self._annotations(record)
        shapes = self.transforms({"image": record["image"], **annotations.shapes()})
        image = _plain(shapes["image"])
        return Sample(
            image=image,
            image_id=record["image_id"],
            file_name=record["file_name"],
            height=image.shape[-2],
            width=image.shape[-1],
            targets=annotations.follow(shapes, self.drop_invisible),
        )

    def _annotations(self, record: Record) -> _Annotations:
        targets, size = record["targets"], (record["height"], record["width"])
        segmentations = record.get("segmentations")
        if segmentations is None:
            return _Annotations(targets, size)
        if self.move_polygons:
            return _Outlined(targets, size, segmentations)
        drawn = rasterise(segmentations, *size)
        return _Annotations(replace(targets, masks=drawn), size)


class _Annotations:
    """The shapes of an image's targets that transforms move, and the resulting targets."""

    def __init__(self, targets: Targets, size: tuple[int, int]):
        self.targets, self.size = targets, size

    def shapes(self) -> dict[str, Any]:
        """Entries of the dictionary that is transformed."""
        if self.targets.masks is not None:
            return {"masks": tv_tensors.Mask(self.targets.masks)}
        boxes = tv_tensors.BoundingBoxes(self.targets.boxes, format="XYXY", canvas_size=self.size)
        return {"boxes": boxes}

    def follow(self, shapes: dict[str, Any], drop_invisible: bool) -> Targets:
        """The targets after the transforms."""
        masks, boxes = self.moved(shapes)
        visible = (boxes[:, 2:] > boxes[:, :2]).all(1)
        if masks is not None:
            visible &= masks.flatten(1).any(1)
        boxes = boxes * visible[:, None]
        moved = Targets(self.targets.labels, boxes, masks, self.targets.is_thing)
        return moved[visible] if drop_invisible else moved

    def moved(self, shapes: dict[str, Any]) -> tuple[Tensor | None, Tensor]:
        """The moved masks, if there are any, and boxes."""
        if self.targets.masks is None:
            return None, _plain(shapes["boxes"])
        masks = _plain(shapes["masks"])
        return masks, boxes_from_masks(masks, inclusive=False)


class _Outlined(_Annotations):
    """Annotations whose polygons are drawn after they were moved, and whose RLEs are moved as masks."""

    def __init__(self, targets: Targets, size: tuple[int, int], segmentations: Sequence[Segmentation]):
        super().__init__(targets, size)
        self.polygons = [[np.frombuffer(p).reshape(-1, 2) for p in s.polygons] for s in segmentations]
        self.encoded = torch.tensor([not polygons for polygons in self.polygons], dtype=torch.bool)
        self.masks = rasterise([s for s in segmentations if not s.polygons], *size)

    def shapes(self) -> dict[str, Any]:
        points = [polygon for polygons in self.polygons for polygon in polygons]
        joined = torch.from_numpy(np.concatenate([np.zeros((0, 2)), *points]))
        return {"points": Points.on_canvas(joined, self.size), "masks": tv_tensors.Mask(self.masks)}

    def moved(self, shapes: dict[str, Any]) -> tuple[Tensor | None, Tensor]:
        points, size = _plain(shapes["points"]).numpy(), _size_of(shapes["image"])
        lengths = [len(polygon) for polygons in self.polygons for polygon in polygons]
        pieces = iter(np.split(points, np.cumsum(lengths, dtype=int)[:-1]))
        polygons = [[next(pieces) for _ in polygons] for polygons in self.polygons]
        boxes = visible_boxes(polygons, *size)
        outside = (boxes[:, 2:] <= boxes[:, :2]).any(1)
        masks = draw([[] if out else p for p, out in zip(polygons, outside.tolist(), strict=True)], *size)
        masks[self.encoded] = _plain(shapes["masks"])
        boxes[self.encoded] = boxes_from_masks(masks[self.encoded], inclusive=False)
        return masks, boxes


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
        super().__init__(_compose(flip_probability, resize, color_jitter), drop_invisible, True)


class LargeScaleJitterMapper(TrainingMapper):
    """Large-scale jitter to a fixed size, and random flip, as published for COCO with Mask DINO.

    Args:
        image_size: height and width of the result in pixels; one number if they are the same.
        min_scale, max_scale: range of the scale; at 1, the image just fits.
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
        super().__init__(
            _compose(flip_probability, resize, color_jitter, pad), drop_invisible, move_polygons=True
        )


class TileMapper(TrainingMapper):
    """Random tiles of large pictures, for models that are later used with :class:`detrex.modeling.Tiles`.

    Args:
        size: height and width of a tile in pixels.
        min_scale, max_scale: range of the scale of the picture; at 1, a tile shows ``size`` of its pixels.
        object_probability: probability that a tile lies around a random object; otherwise, it lies anywhere.
        flip_probability: of the horizontal flip.
        pad_value: colour of the padding of smaller pictures in 0..255, one number or one for each channel.
        color_jitter: a torchvision transform that changes colours, or None.
        drop_invisible: see :class:`TrainingMapper`.
    """

    def __init__(
        self,
        size: int = 1024,
        min_scale: float = 0.8,
        max_scale: float = 1.25,
        object_probability: float = 0.8,
        flip_probability: float = 0.5,
        pad_value: float | Sequence[float] = 128,
        color_jitter: Callable | None = None,
        drop_invisible: bool = True,
    ):
        cut = RandomTile(size, min_scale, max_scale, object_probability)
        pad = PadToSize((size, size), pad_value)
        # Flipping a tile is faster than flipping the picture.
        steps = [cut, v2.RandomHorizontalFlip(flip_probability), color_jitter, pad]
        transforms = v2.Compose([step for step in steps if step is not None])
        super().__init__(transforms, drop_invisible, move_polygons=True)


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


class KeepOriginal:
    """Wraps a mapper so that samples keep the original image, see :func:`with_original`."""

    def __init__(self, mapper: Callable[[Record], Sample]):
        self.mapper = mapper

    def __call__(self, record: Record) -> Sample:
        return with_original(self.mapper(record), record)


def with_original(sample: Sample, record: Record) -> Sample:
    """The sample with the record's image as ``original``, from which views of other sizes can be made."""
    return Sample(**{**sample, "original": _plain(record["image"])})


class OneClickMapper(EvalMapper):
    """Samples for evaluation by one click in each true mask, at the pixel that is farthest from its edge.

    Args:
        size, max_size: see :class:`EvalMapper`.
        side: side of the square that stands for a click, in pixels of the resized image.
    """

    def __init__(self, size: int = 800, max_size: int = 1333, side: float = 6.0):
        super().__init__(size, max_size)
        self.side = side

    def __call__(self, record: Record) -> Sample:
        """The sample with ``prompts``, and ``targets`` at the size of the original image.

        Images without masks, as in prediction, have no prompts.

        Raises:
            DataError: the data has no masks.
        """
        masks = record["targets"].masks
        if masks is None:
            raise DataError("clicks are drawn from masks, and these data have boxes only")
        sample = super().__call__(record)
        sample["targets"] = record["targets"]
        if not len(masks):
            return sample
        resized = torch.tensor(sample["image"].shape[:0:-1])  # width and height
        frame = torch.tensor([record["width"], record["height"]])
        centres = [ndimage.distance_transform_edt(mask.numpy()).argmax() for mask in masks]
        places = torch.tensor([[int(c) % masks.shape[2], int(c) // masks.shape[2]] for c in centres])
        points = (places.reshape(-1, 2) + 0.5) / frame
        sides = (self.side / resized).expand_as(points)
        kind = torch.full((1, len(points)), POINT)
        sample["prompts"] = Prompts(torch.cat([points, sides], 1)[None], kind)
        return sample


def _both_sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _compose(flip_probability: float, resize: v2.Transform, *more: Callable | None) -> v2.Compose:
    # The flip comes first, so that padding is on the right. Colours change after the crop, which is smaller
    # than the image, and before there is padding.
    steps = [v2.RandomHorizontalFlip(flip_probability), resize, *more]
    return v2.Compose([step for step in steps if step is not None])


def _size_of(image: Tensor) -> tuple[int, int]:
    height, width = image.shape[-2:]
    return height, width


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(torch.Tensor)
