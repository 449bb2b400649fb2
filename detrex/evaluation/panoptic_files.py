"""Reading ground truth in COCO panoptic format (JSON and PNGs), image by image."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from detrex.data.annotation_files import read_json, require_keys
from detrex.data.errors import DataError
from detrex.data.image_io import read_label_map
from detrex.evaluation.panoptic_quality import Segmentation
from detrex.structures import Categories
from detrex.structures.panoptic import ids_from_rgb


class PanopticFiles:
    """The ground truth of a COCO panoptic data set.

    Args:
        annotations: COCO panoptic JSON.
        segments: directory of its PNGs.
        categories: the model's classes; those of ``annotations`` must be among them.
    """

    def __init__(self, annotations: str | Path, segments: str | Path, categories: Categories) -> None:
        self.annotations = Path(annotations)
        self.segments = Path(segments)
        self.categories = categories
        content = read_json(annotations)
        require_keys(content, ("annotations",), "the COCO panoptic file", annotations)
        for entry in content["annotations"]:
            require_keys(
                entry, ("image_id", "file_name", "segments_info"), "panoptic annotation", annotations
            )
        self._entries = {entry["image_id"]: entry for entry in content["annotations"]}
        if not self.segments.is_dir():
            raise FileNotFoundError(f"{segments}: no such directory (the PNGs of {annotations})")

    def __len__(self) -> int:
        return len(self._entries)

    def file_name(self, image_id: Hashable) -> str:
        """The PNG's name.

        Raises:
            DataError: the annotation file does not have the image.
        """
        if image_id not in self._entries:
            raise DataError(
                f"image id {image_id!r} is not in {self.annotations}: "
                "the evaluator and the test data set must use the same annotation file"
            )
        return self._entries[image_id]["file_name"]

    def read(self, image_id: Hashable) -> Segmentation:
        """The segments of an image, with class indices of ``categories``.

        Raises:
            DataError: the PNG is missing, it and the JSON contradict each other, or the image is not listed.
        """
        path = self.segments / self.file_name(image_id)
        pixels = read_label_map(path)
        if pixels.ndim != 3:
            raise DataError(f"{path} has one channel: a panoptic PNG is RGB, of segment ids in three bytes")
        ids = ids_from_rgb(pixels[..., :3])
        try:
            return Segmentation.from_lists(ids, [self._segment(s) for s in self._segments_of(image_id)])
        except ValueError as error:
            raise DataError(f"image {image_id} of {self.annotations} and {path}: {error}") from error

    def _segments_of(self, image_id: Hashable) -> list[dict]:
        return self._entries[image_id]["segments_info"]

    def _segment(self, info: dict) -> tuple[int, int, bool]:
        index = self.categories.index_of.get(info["category_id"])
        if index is None:
            raise ValueError(f"segment {info['id']}: category_id {info['category_id']} is not listed")
        return info["id"], index, bool(info.get("iscrowd", 0))
