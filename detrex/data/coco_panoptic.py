"""COCO panoptic files: a JSON file and one PNG of segment ids an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from detrex.data.annotation_files import parse_categories, read_json, require_keys
from detrex.data.errors import DataError
from detrex.data.image_dataset import CocoDataset, check_files, warn_left_out
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
        content = read_json(where)
        listed = content.get("images") if isinstance(content, dict) else None
        super().__init__(images, listed, parse_categories(content, where), where)
        self.segments = Path(segments)
        entries = self._segments_of_images(content, where) if targets else {}
        if targets:
            bare = [i["file_name"] for i in listed if i["id"] not in entries]
            warn_left_out("images have no annotation and are used as empty", where, bare)
            check_files(self.segments, {png: image_id for image_id, (png, _) in entries.items()}, where)
        self._set_entries(listed, entries, default=None)

    def _segments_of_images(self, content: dict, where: Path) -> dict[int, tuple[str, list]]:
        """By image id: PNG and (segment id, class or None for a crowd) of each segment."""
        if "annotations" not in content:
            raise DataError(f"{where} has no key 'annotations'. Is it a file of a test split?")
        ids = {i["id"] for i in content["images"]}
        entries = {}
        for annotation in content["annotations"]:
            require_keys(annotation, ("image_id", "file_name", "segments_info"), "annotation", where)
            image_id = annotation["image_id"]
            if image_id not in ids:
                raise DataError(f"{where}: the image of an annotation, id {image_id}, is not under 'images'.")
            if image_id in entries:
                raise DataError(f"{where}: image id {image_id} is annotated twice. Take one of the two out.")
            segments = [
                self._segment(s, f"{where}: image id {image_id}") for s in annotation["segments_info"]
            ]
            entries[image_id] = (annotation["file_name"], segments)
        return entries

    def _segment(self, segment: dict, where: str) -> tuple[int, int | None]:
        require_keys(segment, ("id", "category_id"), "segment", where)
        label = self.categories.index_of.get(segment["category_id"])
        if label is None:
            raise DataError(
                f"{where}: segment id {segment['id']} has category id {segment['category_id']}, which is not "
                "listed under 'categories'. Add the category, or correct the id."
            )
        return segment["id"], None if segment.get("iscrowd", 0) else label

    def _targets(self, entry: dict[str, Any], height: int, width: int) -> Targets:
        if entry["annotations"] is None:
            return Targets.empty(height, width)
        png, segments = entry["annotations"]
        path = self.segments / png
        segment_map = _segment_ids(read_label_map(path, (height, width)), path)
        _check_ids(segment_map, {i for i, _ in segments}, path, entry["image_id"])
        kept = [(i, label) for i, label in segments if label is not None]
        ids = torch.tensor([i for i, _ in kept], dtype=torch.int32)
        labels = torch.tensor([label for _, label in kept], dtype=torch.int64)
        return self.targets_from_masks(labels, torch.from_numpy(segment_map) == ids[:, None, None])


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
