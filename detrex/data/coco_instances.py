"""A data set of COCO instance files: boxes, and masks as polygons or RLE."""

from __future__ import annotations

from pathlib import Path

import torch

from detrex.data.census import ObjectCounts
from detrex.data.coco.objects import CocoFile
from detrex.data.coco.reader import ReadOptions
from detrex.data.coco.segmentation import Segmentation, rasterise
from detrex.data.file_names import AS_LISTED
from detrex.data.image_dataset import ListedImages
from detrex.data.image_io import Orientation
from detrex.structures import Targets


class CocoInstances(ListedImages):
    """Objects of a COCO instance file (https://cocodataset.org/#format-data).

    Crowds are not targets. Boxes are drawn tight around the masks, so that they fit after any crop; without
    masks, or before masks are drawn, boxes are those of :class:`detrex.data.coco.objects.CocoFile`, which
    evaluation also uses. Objects that cannot be used are left out, and a warning gives their number: objects
    whose polygons all have fewer than three points, or whose mask covers no pixel of the image, and, without
    masks, boxes that have no width or height inside the image.

    A file is parsed once; see :func:`detrex.data.coco.cache.open_annotations`.

    Args:
        images: folder of the images.
        annotations: JSON file.
        masks: whether objects need masks; if not, targets have boxes only.
        targets: whether to read targets; not reading them is faster where they are not used, as in
            evaluation.
        skip_empty: whether to leave out images without any object to learn from.
        file_names: how names of images are looked up, see :data:`detrex.data.file_names.REWRITINGS`.
        leave_folder: whether names of images may be absolute or lead out of the folder.
        orientation: the picture on which annotations were drawn, see
            :data:`detrex.data.image_io.Orientation`.
        value_range: for images of 16 bits a channel, see :func:`detrex.data.image_io.read_image`.

    Raises:
        FileNotFoundError: there is no annotation file.
        DataError: the annotation file has errors, or images are missing.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        masks: bool = True,
        targets: bool = True,
        skip_empty: bool = False,
        file_names: str = AS_LISTED,
        leave_folder: bool = False,
        orientation: Orientation = "auto",
        value_range: tuple[float, float] | None = None,
    ):
        options = ReadOptions(Path(images), orientation, leave_folder)
        self.file = CocoFile(Path(annotations), options)
        super().__init__(images, self.file, file_names, orientation, value_range)
        self.masks, self.reads_targets = masks, targets
        if targets:
            self.file.require_objects(masks)
            self.warnings = self.file.warnings(masks)
            if skip_empty:
                self.choose(self.file.learnable(masks) > 0, "without objects")
            self.log_warnings()

    def counts(self) -> ObjectCounts | None:
        return self.file.counts(self.masks) if self.file.annotated else None

    def targets(self, index: int) -> Targets:
        targets, segmentations = self.undrawn_targets(index)
        if segmentations is None:
            return targets
        return self.targets_from_masks(targets.labels, rasterise(segmentations, *self.image_size(index)))

    def undrawn_targets(self, index: int) -> tuple[Targets, list[Segmentation] | None]:
        found = self.file.objects(self.place(index), self.masks) if self.reads_targets else []
        found = [o for o in found if not o.is_crowd]
        index_of = self.categories.index_of
        labels = torch.tensor([index_of[o.category_id] for o in found], dtype=torch.int64)
        boxes = torch.tensor([o.box for o in found], dtype=torch.float32).reshape(-1, 4)
        targets = Targets(labels, boxes, None, self._is_thing[labels])
        if not self.masks:
            return targets, None
        return targets, [o.segmentation for o in found if o.segmentation is not None]
