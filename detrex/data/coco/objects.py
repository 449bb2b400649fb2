"""The objects of COCO instance files, for training, evaluation, drawing and the census."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detrex.data.census import ObjectCounts
from detrex.data.coco.object_reader import CocoObject, ObjectReader
from detrex.data.coco.opened import OpenedFile
from detrex.data.coco.reader import ReadOptions
from detrex.data.errors import DataError


class CocoFile(OpenedFile[CocoObject]):
    """A checked COCO instance file (https://cocodataset.org/#format-data); objects are read image by image.

    Args:
        where: JSON file.
        options: how to read it.

    See :class:`~detrex.data.coco.opened.OpenedFile` for attributes and errors.
    """

    def __init__(self, where: Path, options: ReadOptions):
        super().__init__(ObjectReader(where, options), CocoObject)
        header, arrays = self._store.header, self._store.arrays
        self._warnings: list[str] = header["warnings"]
        self._views: Mapping[str, Mapping[str, Any]] = header["views"]
        self._learnable = {view: arrays[f"learnable_{view}"] for view in self._views}

    def objects(self, index: int, masks: bool) -> list[CocoObject]:
        """The objects of an image, including crowds, in the file's order.

        Args:
            index: of the image in the file.
            masks: whether to leave out objects without a mask.
        """
        found = self._of_image(index)
        return [o for o in found if o.segmentation is not None] if masks else found

    def learnable(self, masks: bool) -> np.ndarray:
        """Number of objects, without crowds, in each image, (M,) int32."""
        return self._learnable[_view(masks)]

    def counts(self, masks: bool) -> ObjectCounts:
        """Counts of objects by class and size, and of what was left out, by reason."""
        return msgspec.convert(self._views[_view(masks)]["counts"], ObjectCounts)

    def warnings(self, masks: bool) -> list[str]:
        """Warnings for users of masks, or of boxes alone."""
        return [*self._warnings, *self._views[_view(masks)]["warnings"]]

    def require_objects(self, masks: bool) -> None:
        """Raises :class:`DataError` unless the file has annotations, and masks or boxes for its objects."""
        self.require_annotations()
        if problem := self._views[_view(masks)]["problem"]:
            raise DataError(problem)


def _view(masks: bool) -> str:
    return "masks" if masks else "boxes"
