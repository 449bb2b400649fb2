"""What the data sets have in common."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from detrex.data.annotation_cache import open_annotations
from detrex.data.coco_parser import CocoParser
from detrex.data.errors import DataError
from detrex.data.image_io import read_image
from detrex.data.packed_list import PackedList
from detrex.structures import Categories, Targets, boxes_from_masks

logger = logging.getLogger(__name__)


class Record(TypedDict):
    """An image with its annotations, as a data set returns it and a mapper takes it.

    ``image``: ``tv_tensors.Image`` (3, H, W) uint8 RGB. ``height``, ``width``: its size.
    ``targets``: in its frame.
    """

    image: Tensor
    image_id: int | str
    file_name: str
    height: int
    width: int
    targets: Targets


class ImageDataset(Dataset):
    """Images in a folder, with annotations. Subclasses say how annotations become targets.

    Attributes:
        images: the folder.
        categories: the classes.
    """

    def __init__(self, images: str | Path, categories: Categories):
        self.images = Path(images)
        self.categories = categories
        self._entries = PackedList.of([])
        self._is_thing = torch.tensor(categories.is_thing)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Record:
        """Reads image ``index``.

        Raises:
            DataError: the image or its annotation is broken; the message names the image.
        """
        entry = self._entry(index)
        height, width = self.image_size(index)
        image = read_image(self.images / entry["file_name"], (height, width), entry["image_id"])
        return Record(
            image=image,
            image_id=entry["image_id"],
            file_name=entry["file_name"],
            height=height,
            width=width,
            targets=self._targets(entry, height, width),
        )

    def image_names(self) -> list[tuple[int | str, str]]:
        """(image id, file name) of all images, without opening any."""
        return [(entry["image_id"], entry["file_name"]) for entry in self._entries]

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of image ``index`` in pixels, without opening it."""
        raise NotImplementedError

    def _entry(self, index: int) -> dict[str, Any]:
        """What is known of image ``index``: ``image_id``, ``file_name`` and what ``_targets`` needs."""
        return self._entries[index]

    def _targets(self, entry: dict[str, Any], height: int, width: int) -> Targets:
        raise NotImplementedError

    def targets_from_masks(self, labels: Tensor, masks: Tensor) -> Targets:
        """Targets with boxes tight around ``masks`` ((N, H, W) bool); objects without pixels are left out."""
        visible = masks.flatten(1).any(1)
        labels, masks = labels[visible], masks[visible]
        boxes = boxes_from_masks(masks, inclusive=False)
        return Targets(labels, boxes, masks, self._is_thing[labels])


class CocoDataset(ImageDataset):
    """Images that a COCO file lists, in its order.

    Args:
        images: folder of the images.
        annotations: JSON file.
        parser: decides what is kept of each annotation, which ``_targets`` finds in ``entry["annotations"]``.

    Raises:
        FileNotFoundError: there is no annotation file.
        DataError: the annotation file has errors, or images are missing.
    """

    def __init__(self, images: str | Path, annotations: str | Path, parser: CocoParser):
        where = Path(annotations)
        store = open_annotations(where, parser.settings, parser)
        super().__init__(images, Categories.from_dict(store.header["categories"]))
        for warning in store.header["warnings"]:
            logger.warning("%s: %s", where, warning)
        self._sizes = store.array("sizes")
        self._entries = store.items("images")
        self._annotations = store.groups("annotations")
        check_files(self.images, {name: image_id for image_id, name in self.image_names()}, where)

    def image_size(self, index: int) -> tuple[int, int]:
        height, width = self._sizes[index]
        return int(height), int(width)

    def _entry(self, index: int) -> dict[str, Any]:
        return {**self._entries[index], "annotations": self._annotations[index]}


def check_files(folder: Path, files: Mapping[str, Any], where: Path) -> None:
    """Raises :class:`DataError` unless all ``files`` (name to image id) are in ``folder``, by listing it."""
    if not folder.is_dir():
        raise DataError(f"Folder {folder}, for the files that {where} lists, does not exist. Check the path.")
    present = {sub: _listing(folder / sub) for sub in {os.path.dirname(name) for name in files}}
    missing = [name for name in files if os.path.basename(name) not in present[os.path.dirname(name)]]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(files)} files that {where} lists are not in {folder}, the first being "
            f"{missing[0]} (image id {files[missing[0]]}). Check the folder, or take them out of the list."
        )


def _listing(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()
