"""COCO panoptic files: a JSON file and one PNG of segment ids an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from detrex.data.annotation_files import require_keys
from detrex.data.coco_parser import CocoParser, Tally
from detrex.data.errors import DataError
from detrex.data.image_dataset import CocoDataset, check_files
from detrex.data.image_io import read_label_map
from detrex.structures import Targets
from detrex.structures.panoptic import ids_from_rgb


class CocoPanoptic(CocoDataset):
    """Things and stuff of a COCO panoptic file (https://cocodataset.org/#format-data, arXiv 1801.00868).

    Each segment is an object of the targets, with a box tight around it; crowds are left out. An image
    without an entry under ``annotations`` has no targets, and a warning says how many there are.

    Args:
        images: folder of the images.
        annotations: JSON file.
        segments: folder of the PNGs, whose colour is the segment id R + 256 G + 65536 B, 0 for none.
        targets: whether to load annotations at all; without, every image has no targets, which is
            faster where they are not used, as in evaluation.

    Raises:
        FileNotFoundError: there is no annotation file.
        DataError: the annotation file has errors, or images or PNGs are missing.
    """

    def __init__(
        self, images: str | Path, annotations: str | Path, segments: str | Path, targets: bool = True
    ):
        where = Path(annotations)
        super().__init__(images, where, _PanopticParser(where, targets))
        self.segments = Path(segments)
        if targets:
            entries = (self._entry(index) for index in range(len(self)))
            pngs = {e["annotations"][0][0]: e["image_id"] for e in entries if e["annotations"]}
            check_files(self.segments, pngs, where)

    def _targets(self, entry: dict[str, Any], height: int, width: int) -> Targets:
        if not entry["annotations"]:
            return Targets.empty(height, width)
        ((png, segments),) = entry["annotations"]
        path = self.segments / png
        segment_map = _segment_ids(read_label_map(path, (height, width)), path)
        _check_ids(segment_map, {i for i, _ in segments}, path, entry["image_id"])
        index_of = self.categories.index_of
        kept = [(i, index_of[category_id]) for i, category_id in segments if category_id is not None]
        ids = torch.tensor([i for i, _ in kept], dtype=torch.int32)
        labels = torch.tensor([label for _, label in kept], dtype=torch.int64)
        return self.targets_from_masks(labels, torch.from_numpy(segment_map) == ids[:, None, None])


class _PanopticParser(CocoParser):
    """Keeps each image's PNG and (segment id, category id or None for a crowd) of its segments."""

    def start(self) -> None:
        super().start()
        self.annotated: set[Any] = set()

    def keep(self, annotation: dict[str, Any]) -> Any:
        require_keys(annotation, ("image_id", "file_name", "segments_info"), "annotation", self.where)
        image_id = annotation["image_id"]
        if image_id not in self.images:
            raise DataError(
                f"{self.where}: the image of an annotation, id {image_id}, is not under 'images'."
            )
        if image_id in self.annotated:
            raise DataError(f"{self.where}: image id {image_id} is annotated twice. Take one of the two out.")
        self.annotated.add(image_id)
        return annotation["file_name"], [self._segment(s, image_id) for s in annotation["segments_info"]]

    def _segment(self, segment: dict[str, Any], image_id: Any) -> tuple[int, int | None]:
        require_keys(segment, ("id", "category_id"), "segment", f"{self.where}: image id {image_id}")
        name = f"image id {image_id}: segment id {segment['id']}"
        self.use_category(segment["category_id"], name)
        return segment["id"], None if segment.get("iscrowd", 0) else segment["category_id"]

    def tallies(self) -> list[Tally]:
        bare = Tally("images have no annotation and are used as empty")
        for image_id, image in self.images.items():
            if self.targets and image_id not in self.annotated:
                bare.add(image.file_name)
        return [bare]


def _segment_ids(colors: np.ndarray, path: Path) -> np.ndarray:
    """(H, W) int32 of segment ids."""
    if colors.ndim != 3 or colors.shape[2] != 3 or colors.dtype != np.uint8:
        raise DataError(f"{path} is not an 8-bit RGB image, as PNGs of segment ids are. Convert it.")
    return ids_from_rgb(colors)


def _check_ids(segment_map: np.ndarray, listed: set[int], path: Path, image_id: int) -> None:
    painted = set(np.unique(segment_map).tolist()) - {0}
    if painted != listed:
        only_painted, only_listed = sorted(painted - listed)[:5], sorted(listed - painted)[:5]
        raise DataError(
            f"{path} and the annotation of image id {image_id} disagree: segment ids {only_painted} are in "
            f"the PNG only, {only_listed} in 'segments_info' only. Make the two agree."
        )
