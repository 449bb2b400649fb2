"""The base classes of data sets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detrex.data.census import ObjectCounts
from detrex.data.coco.reader import ImageEntry
from detrex.data.coco.segmentation import Segmentation
from detrex.data.coco.store import Records
from detrex.data.errors import DataError
from detrex.data.file_names import AS_LISTED, find_files
from detrex.data.image_io import ORIENTATIONS, Orientation, read_image
from detrex.structures import Categories, Targets, boxes_from_masks

logger = logging.getLogger(__name__)


class DrawnRecord(TypedDict):
    """An image with its annotations.

    ``image``: ``tv_tensors.Image`` (3, H, W) uint8 RGB. ``height``, ``width``: its size.
    ``targets``: in the frame of the image.
    """

    image: Tensor
    image_id: int | str
    file_name: str
    height: int
    width: int
    targets: Targets


class Record(DrawnRecord, total=False):
    """The record that a data set returns and a mapper takes.

    ``segmentations``: masks of the targets that are not drawn yet; if they are given, ``targets`` has no
        masks.
    """

    segmentations: Sequence[Segmentation]


class ImageDataset(Dataset):
    """Images in a folder, with annotations. Subclasses list the images and turn annotations into targets.

    Args:
        images: the folder.
        categories: the classes.
        orientation: the picture on which annotations were drawn, see
            :data:`detrex.data.image_io.Orientation`.
        value_range: see :func:`detrex.data.image_io.read_image`.

    Attributes:
        images: the folder.
        categories: the classes.
        warnings: for users of the annotations.
    """

    def __init__(
        self,
        images: str | Path,
        categories: Categories,
        orientation: Orientation = "auto",
        value_range: tuple[float, float] | None = None,
    ):
        if orientation not in ORIENTATIONS:
            raise DataError(f"orientation={orientation!r}: expected is one of {', '.join(ORIENTATIONS)}.")
        if value_range is not None and not (len(value_range) == 2 and value_range[0] < value_range[1]):
            raise DataError(f"value_range={value_range}: expected are two numbers, the lower one first.")
        self.images = Path(images)
        self.categories = categories
        self.orientation, self.value_range = orientation, value_range
        self.warnings: list[str] = []
        self._is_thing = torch.tensor(categories.is_thing)

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Record:
        return self.record(index)

    def share(self, rank: int, world_size: int) -> range:
        """Indices of the images that process ``rank`` of ``world_size`` evaluates, in order."""
        return range(rank, len(self), world_size)

    def record(self, index: int, draw_masks: bool = True) -> Record:
        """Reads image ``index``.

        Args:
            index: of the image.
            draw_masks: whether to draw masks that are stored as polygons or RLE; otherwise, they are returned
                as ``segmentations``.

        Raises:
            DataError: the image or its annotation is broken; the message names the image.
        """
        entry = self.entry(index)
        height, width = self.image_size(index)
        path = self.images / entry.file_name
        image = read_image(path, (height, width), entry.image_id, self.orientation, self.value_range)
        targets, segmentations = (self.targets(index), None) if draw_masks else self.undrawn_targets(index)
        record = Record(
            image=image,
            image_id=entry.image_id,
            file_name=entry.file_name,
            height=height,
            width=width,
            targets=targets,
        )
        if segmentations is not None:
            record["segmentations"] = segmentations
        return record

    def entry(self, index: int) -> ImageEntry:
        """Id and file name of image ``index``."""
        raise NotImplementedError

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of image ``index`` in pixels, without opening it."""
        raise NotImplementedError

    def targets(self, index: int) -> Targets:
        """The objects of image ``index`` in pixels of its frame, without opening the image."""
        raise NotImplementedError

    def undrawn_targets(self, index: int) -> tuple[Targets, Sequence[Segmentation] | None]:
        """:meth:`targets` without masks, and the masks as they are stored; None for masks of pixels."""
        return self.targets(index), None

    def counts(self) -> ObjectCounts | None:
        """Counts of objects by kind; None if they are not known."""
        return None

    def image_names(self) -> list[tuple[int | str, str]]:
        """(image id, file name) of all images, without opening them."""
        entries = (self.entry(index) for index in range(len(self)))
        return [(entry.image_id, entry.file_name) for entry in entries]

    def targets_from_masks(self, labels: Tensor, masks: Tensor) -> Targets:
        """Targets with tight boxes around ``masks`` ((N, H, W) bool); objects without pixels are left out."""
        visible = masks.flatten(1).any(1)
        labels, masks = labels[visible], masks[visible]
        boxes = boxes_from_masks(masks, inclusive=False)
        return Targets(labels, boxes, masks, self._is_thing[labels])


class OneClass(ImageDataset):
    """Another data set, with all its objects in one class, "object".

    Args:
        dataset: the other one.
    """

    def __init__(self, dataset: ImageDataset):
        categories = Categories.from_names(["object"])
        super().__init__(dataset.images, categories, dataset.orientation, dataset.value_range)
        self.dataset, self.warnings = dataset, dataset.warnings

    def __len__(self) -> int:
        return len(self.dataset)

    def entry(self, index: int) -> ImageEntry:
        return self.dataset.entry(index)

    def image_size(self, index: int) -> tuple[int, int]:
        return self.dataset.image_size(index)

    def targets(self, index: int) -> Targets:
        return self._as_objects(self.dataset.targets(index))

    def undrawn_targets(self, index: int) -> tuple[Targets, Sequence[Segmentation] | None]:
        targets, segmentations = self.dataset.undrawn_targets(index)
        return self._as_objects(targets), segmentations

    @staticmethod
    def _as_objects(targets: Targets) -> Targets:
        things = torch.ones_like(targets.is_thing)
        return replace(targets, labels=torch.zeros_like(targets.labels), is_thing=things)


class ImageList(Protocol):
    """A checked file that lists images."""

    where: Path
    categories: Categories
    images: Records[ImageEntry]
    sizes: np.ndarray


class ListedImages(ImageDataset):
    """Images that a COCO file lists, in its order.

    Args:
        images: folder of the images.
        file: the file that lists them.
        file_names: how their names are looked up, see :data:`detrex.data.file_names.REWRITINGS`.
        orientation, value_range: see :class:`ImageDataset`.

    Raises:
        DataError: images are missing.
    """

    def __init__(
        self,
        images: str | Path,
        file: ImageList,
        file_names: str = AS_LISTED,
        orientation: Orientation = "auto",
        value_range: tuple[float, float] | None = None,
    ):
        super().__init__(images, file.categories, orientation, value_range)
        self._list = file
        self._chosen = np.arange(len(file.images), dtype=np.int32)
        names = {entry.file_name: entry.image_id for entry in file.images}
        found = find_files(self.images, names, file.where, file_names)
        if file_names != AS_LISTED:
            renamed = (ImageEntry(e.image_id, found[e.file_name]) for e in file.images)
            self._entries = Records.in_memory(renamed, ImageEntry)
        else:
            self._entries = file.images

    def __len__(self) -> int:
        return len(self._chosen)

    def entry(self, index: int) -> ImageEntry:
        return self._entries[self.place(index)]

    def image_size(self, index: int) -> tuple[int, int]:
        height, width = self._list.sizes[self.place(index)]
        return int(height), int(width)

    def place(self, index: int) -> int:
        """The place of image ``index`` in the file, which may list more images.

        Raises:
            IndexError: there is no such image.
        """
        return int(self._chosen[index])

    def choose(self, chosen: np.ndarray, why: str) -> None:
        """Leaves images out, with a warning.

        Args:
            chosen: (M,) bool, which images of the file to keep.
            why: the reason for leaving out the others, for the warning.
        """
        left_out = int((~chosen).sum())
        if left_out:
            first = self._list.images[int(np.flatnonzero(~chosen)[0])].file_name
            more = ", ..." if left_out > 1 else ""
            self.warnings.append(f"{left_out} images {why} are left out ({first}{more})")
        self._chosen = np.flatnonzero(chosen).astype(np.int32)

    def log_warnings(self) -> None:
        """Logs the warnings for users of the annotations."""
        for warning in self.warnings:
            logger.warning("%s: %s", self._list.where, warning)
