"""Ground truth in COCO panoptic format (JSON and PNGs), read image by image."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from pathlib import Path

from detrex.data.census import ObjectCounts
from detrex.data.coco.panoptic import PanopticEntry, PanopticFile, check_segments, read_segment_ids
from detrex.data.coco.reader import ReadOptions
from detrex.data.errors import DataError
from detrex.data.file_names import AS_LISTED, find_files
from detrex.data.image_io import Orientation
from detrex.evaluation.classes import model_categories
from detrex.evaluation.panoptic_quality import Segmentation
from detrex.structures import Categories

logger = logging.getLogger(__name__)


class PanopticFiles:
    """The ground truth of a COCO panoptic data set.

    Args:
        annotations: COCO panoptic JSON.
        segments: folder of its PNGs.
        classes: the model's classes, which must include those of ``annotations``; see
            :func:`detrex.evaluation.classes.model_categories`.
        images: folder of the images, for sizes that ``annotations`` does not list.
        file_names, orientation, leave_folder: of the data set, see :class:`detrex.data.CocoPanoptic`.

    Attributes:
        categories: the model's classes.

    Raises:
        FileNotFoundError: there is no annotation file.
        DataError: the file has errors, PNGs are missing, or the model does not know its classes.
    """

    def __init__(
        self,
        annotations: str | Path,
        segments: str | Path,
        classes: str | Path | Categories | None = None,
        images: str | Path | None = None,
        file_names: str = AS_LISTED,
        orientation: Orientation = "auto",
        leave_folder: bool = False,
    ) -> None:
        self.annotations = Path(annotations)
        self.segments = Path(segments)
        options = ReadOptions(None if images is None else Path(images), orientation, leave_folder)
        self._file = PanopticFile(self.annotations, options)
        self._file.require_annotations()
        self.categories = model_categories(classes, self._file.categories, annotations)
        for warning in self._file.warnings:
            logger.warning("%s: %s", annotations, warning)
        self._index_of: dict[Hashable, int] = {
            image.image_id: index
            for index, image in enumerate(self._file.images)
            if self._file.entry(index) is not None
        }
        names = {self._entry(image_id).file_name: image_id for image_id in self._index_of}
        self._names = find_files(self.segments, names, self.annotations, file_names)

    def __len__(self) -> int:
        return len(self._index_of)

    def counts(self) -> ObjectCounts:
        """Counts of the segments."""
        return self._file.counts

    def file_name(self, image_id: Hashable) -> str:
        """The name of an image's PNG.

        Raises:
            DataError: the annotation file does not list the image.
        """
        return self._names[self._entry(image_id).file_name]

    def read(self, image_id: Hashable) -> Segmentation:
        """The segments of an image, with class indices of ``categories``.

        Raises:
            DataError: the PNG is missing or contradicts the JSON file, or the image is not listed.
        """
        entry = self._entry(image_id)
        path = self.segments / self.file_name(image_id)
        height, width = self._file.sizes[self._index_of[image_id]].tolist()
        ids = read_segment_ids(path, (height, width))
        check_segments(ids, entry, path, str(image_id))
        index_of = self.categories.index_of
        segments = [(s.segment_id, index_of[s.category_id], s.is_crowd) for s in entry.segments]
        return Segmentation.from_lists(ids, segments)

    def _entry(self, image_id: Hashable) -> PanopticEntry:
        index = self._index_of.get(image_id)
        entry = None if index is None else self._file.entry(index)
        if entry is None:
            raise DataError(
                f"image id {image_id!r} is not in {self.annotations}: "
                "the evaluator and the test data set must use the same annotation file"
            )
        return entry
