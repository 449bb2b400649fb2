"""The objects of COCO instance files, for training, evaluation, drawing and the census."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detrex.data.census import ObjectCounts
from detrex.data.coco.cache import open_annotations
from detrex.data.coco.object_reader import CocoObject, ObjectReader
from detrex.data.coco.reader import ImageEntry, ReadOptions
from detrex.data.coco.store import Records
from detrex.data.errors import DataError
from detrex.structures import Categories


class CocoFile:
    """A checked COCO instance file (https://cocodataset.org/#format-data); objects are read image by image.

    Args:
        where: JSON file.
        options: how to read it.

    Attributes:
        where: the file.
        categories: the classes.
        images: the images, in the file's order.
        sizes: (M, 2) int32, height and width of each image in pixels.
        annotated: whether the file has a key ``annotations``.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it has errors.
    """

    def __init__(self, where: Path, options: ReadOptions):
        reader = ObjectReader(where, options)
        store = open_annotations(where, reader.settings, reader)
        header = store.header
        count = header["objects"]
        self.where = where
        self.categories = Categories.from_dict(header["categories"])
        self.sizes = store.arrays["sizes"]
        self.images: Records[ImageEntry] = store.records(count, count + len(self.sizes), ImageEntry)
        self.annotated: bool = header["annotated"]
        self._warnings: list[str] = header["warnings"]
        self._views: Mapping[str, Mapping[str, Any]] = header["views"]
        self._objects: Records[CocoObject] = store.records(0, count, CocoObject)
        self._order, self._ends = store.arrays["order"], store.arrays["groups"]
        self._learnable = {view: store.arrays[f"learnable_{view}"] for view in self._views}

    def objects(self, index: int, masks: bool) -> list[CocoObject]:
        """The objects of an image, including crowds, in the file's order.

        Args:
            index: of the image in the file.
            masks: whether to leave out objects without a mask.
        """
        start = self._ends[index - 1] if index else 0
        found = [self._objects[int(k)] for k in self._order[start : self._ends[index]]]
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

    def require_annotations(self, masks: bool) -> None:
        """Raises :class:`DataError` unless the file has annotations, and masks or boxes for its objects."""
        if not self.annotated:
            raise DataError(f"{self.where} has no key 'annotations'. Is it a file of a test split?")
        if problem := self._views[_view(masks)]["problem"]:
            raise DataError(problem)


def _view(masks: bool) -> str:
    return "masks" if masks else "boxes"
