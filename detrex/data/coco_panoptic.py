"""A data set of COCO panoptic files."""

from __future__ import annotations

from pathlib import Path

import torch

from detrex.data.census import ObjectCounts
from detrex.data.coco.panoptic import PanopticFile, check_segments, read_segment_ids
from detrex.data.coco.reader import ReadOptions
from detrex.data.file_names import AS_LISTED, find_files
from detrex.data.image_dataset import ListedImages
from detrex.data.image_io import Orientation
from detrex.structures import Targets


class CocoPanoptic(ListedImages):
    """Things and stuff of a COCO panoptic file (https://cocodataset.org/#format-data, arXiv 1801.00868).

    Each segment is an object of the targets, with a box tight around it; crowds are left out. An image
    without an entry under ``annotations`` has no targets; a warning gives the number of such images.

    Args:
        images: folder of the images.
        annotations: JSON file.
        segments: folder of the PNGs, whose colours are the segment ids R + 256 G + 65536 B, 0 for no segment.
        targets: whether to read targets; not reading them is faster where they are not used, as in
            evaluation.
        file_names, leave_folder: for images and PNGs, see :class:`detrex.data.CocoInstances`.
        orientation, value_range: see :class:`detrex.data.CocoInstances`.

    Raises:
        FileNotFoundError: there is no annotation file.
        DataError: the annotation file has errors, or images or PNGs are missing.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        segments: str | Path,
        targets: bool = True,
        file_names: str = AS_LISTED,
        leave_folder: bool = False,
        orientation: Orientation = "auto",
        value_range: tuple[float, float] | None = None,
    ):
        where = Path(annotations)
        self.file = PanopticFile(where, ReadOptions(Path(images), orientation, leave_folder))
        super().__init__(images, self.file, file_names, orientation, value_range)
        self.segments, self.reads_targets = Path(segments), targets
        self._pngs: dict[str, str] = {}
        if targets:
            self.file.require_annotations()
            entries = ((self.file.entry(k), image.image_id) for k, image in enumerate(self.file.images))
            pngs = {entry.file_name: image_id for entry, image_id in entries if entry is not None}
            found = find_files(self.segments, pngs, where, file_names)
            self._pngs = {} if file_names == AS_LISTED else found
            self.warnings = self.file.warnings
            self.log_warnings()

    def counts(self) -> ObjectCounts | None:
        return self.file.counts if self.file.annotated else None

    def targets(self, index: int) -> Targets:
        size = self.image_size(index)
        entry = self.file.entry(self.place(index)) if self.reads_targets else None
        if entry is None:
            return Targets.empty(*size)
        path = self.segments / self._pngs.get(entry.file_name, entry.file_name)
        segment_map = read_segment_ids(path, size)
        check_segments(segment_map, entry, path, self.entry(index).image_id)
        index_of = self.categories.index_of
        kept = [s for s in entry.segments if not s.is_crowd]
        ids = torch.tensor([s.segment_id for s in kept], dtype=torch.int32)
        labels = torch.tensor([index_of[s.category_id] for s in kept], dtype=torch.int64)
        return self.targets_from_masks(labels, torch.from_numpy(segment_map) == ids[:, None, None])
