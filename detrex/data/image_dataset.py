"""What the data sets have in common."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detrex.data.annotation_files import require_keys
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
        self._entries = PackedList([])
        self._is_thing = torch.tensor(categories.is_thing)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Record:
        """Reads image ``index``.

        Raises:
            DataError: the image or its annotation is broken; the message names the image.
        """
        entry = self._entries[index]
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

    def _targets(self, entry: dict[str, Any], height: int, width: int) -> Targets:
        raise NotImplementedError

    def targets_from_masks(self, labels: Tensor, masks: Tensor) -> Targets:
        """Targets with boxes tight around ``masks`` ((N, H, W) bool); objects without pixels are left out."""
        visible = masks.flatten(1).any(1)
        labels, masks = labels[visible], masks[visible]
        boxes = boxes_from_masks(masks, inclusive=False)
        return Targets(labels, boxes, masks, self._is_thing[labels])


class CocoDataset(ImageDataset):
    """Images that a COCO file lists, in its order."""

    def __init__(self, images: str | Path, listed: list[dict], categories: Categories, where: Path):
        super().__init__(images, categories)
        check_images(listed, where)
        check_files(self.images, {i["file_name"]: i["id"] for i in listed}, where)

    def image_names(self) -> list[tuple[int | str, str]]:
        """(image id, file name) of all images, without opening any."""
        return [(entry["image_id"], entry["file_name"]) for entry in self._entries]

    def image_size(self, index: int) -> tuple[int, int]:
        height, width = self._sizes[index]
        return int(height), int(width)

    def _set_entries(self, listed: list[dict], annotations: Mapping[int, Any], default: Any) -> None:
        """Keeps the ``listed`` images with their annotations (by image id)."""
        self._sizes = np.array([(i["height"], i["width"]) for i in listed], np.int32).reshape(-1, 2)
        self._entries = PackedList(
            {
                "image_id": image["id"],
                "file_name": image["file_name"],
                "annotations": annotations.get(image["id"], default),
            }
            for image in listed
        )


def check_images(listed: Any, where: Path) -> None:
    """Raises :class:`DataError` unless ``listed`` are ``images`` of a COCO file, with ids of their own."""
    if not listed:
        raise DataError(f"{where} lists no images: a key 'images' with at least one entry is needed.")
    seen = set()
    for image in listed:
        require_keys(image, ("id", "file_name", "height", "width"), "image", where)
        if image["id"] in seen:
            raise DataError(
                f"{where}: image id {image['id']} occurs twice. Every image needs an id of its own."
            )
        if not (image["height"] >= 1 and image["width"] >= 1):
            raise DataError(
                f"{where}: image id {image['id']} ({image['file_name']}) has height {image['height']} and "
                f"width {image['width']}. Correct them."
            )
        seen.add(image["id"])


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


def warn_left_out(what: str, where: Path, names: Iterable[Any]) -> None:
    """Logs that things were left out, how many, and the first few."""
    names = list(names)
    if names:
        first = ", ".join(str(n) for n in names[:5]) + (", ..." if len(names) > 5 else "")
        logger.warning("%s: %d %s (%s)", where, len(names), what, first)
