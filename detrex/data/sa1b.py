"""A data set in the format of SA-1B: beside each image lies a JSON file with masks of everything in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from detrex.data.coco.json_stream import read_json
from detrex.data.coco.reader import ImageEntry
from detrex.data.coco.segmentation import Segmentation, rasterise, read_segmentation
from detrex.data.errors import DataError
from detrex.data.image_dataset import ImageDataset
from detrex.data.image_io import Orientation
from detrex.structures import Categories, Targets


class SegmentAnythingFolder(ImageDataset):
    """Images with masks of one class, "object", in the format of SA-1B (arXiv 2304.02643).

    Beside ``sa_1.jpg`` lies ``sa_1.json``: ``{"image": {"height": ..., "width": ...}, "annotations":
    [{"segmentation": {"size": ..., "counts": ...}}, ...]}``. A file is read when its image is used.

    Args:
        images: the folder, which is searched with its subfolders.
        targets: whether to read masks.
        orientation: the picture on which annotations were drawn, see
            :data:`detrex.data.image_io.Orientation`.

    Raises:
        FileNotFoundError: there is no such folder.
        DataError: no image in it has such a file.
    """

    def __init__(self, images: str | Path, targets: bool = True, orientation: Orientation = "auto"):
        folder = Path(images)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder of images at {folder}")
        super().__init__(folder, Categories.from_names(["object"]), orientation)
        self.reads_targets = targets
        self._names = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*.jpg")
            if path.with_suffix(".json").is_file()
        )
        if not self._names:
            raise DataError(f"{folder}: no .jpg has a .json of the same name beside it")

    def __len__(self) -> int:
        return len(self._names)

    def entry(self, index: int) -> ImageEntry:
        name = self._names[index]
        return ImageEntry(name.removesuffix(".jpg"), name)

    def image_size(self, index: int) -> tuple[int, int]:
        return self._size(self._read(index), index)

    def targets(self, index: int) -> Targets:
        targets, segmentations = self.undrawn_targets(index)
        masks = rasterise(segmentations or [], *self.image_size(index))
        return self.targets_from_masks(targets.labels, masks)

    def undrawn_targets(self, index: int) -> tuple[Targets, Sequence[Segmentation] | None]:
        content = self._read(index)
        size = self._size(content, index)
        found, boxes = [], []
        annotations = content.get("annotations") if self.reads_targets else []
        if not isinstance(annotations, list):
            raise DataError(f"{self._json(index)}: 'annotations' is no list")
        for number, annotation in enumerate(annotations):
            try:
                read = read_segmentation(annotation["segmentation"], size)
            except (TypeError, KeyError, ValueError) as error:
                raise DataError(f"{self._json(index)}: annotations[{number}]: {error}") from error
            if read is not None:
                found.append(read[0])
                boxes.append(read[1].box)
        labels = torch.zeros(len(found), dtype=torch.int64)
        places = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        return Targets(labels, places, None, torch.ones(len(found), dtype=torch.bool)), found

    def _json(self, index: int) -> Path:
        return (self.images / self._names[index]).with_suffix(".json")

    def _read(self, index: int) -> dict[str, Any]:
        content = read_json(self._json(index))
        if not isinstance(content, dict):
            raise DataError(f"{self._json(index)}: expected an object with 'image' and 'annotations'")
        return content

    def _size(self, content: dict[str, Any], index: int) -> tuple[int, int]:
        image = content.get("image")
        match image:
            case {"height": int() as height, "width": int() as width} if height > 0 and width > 0:
                return height, width
        raise DataError(f"{self._json(index)}: 'image' has no height and width in pixels")
