"""What opened annotation files of COCO have in common."""

from __future__ import annotations

from typing import Generic

import numpy as np

from detrex.data.coco.cache import open_annotations
from detrex.data.coco.reader import CocoReader, ImageEntry
from detrex.data.coco.store import Record, Records
from detrex.data.errors import DataError
from detrex.structures import Categories


class OpenedFile(Generic[Record]):
    """A checked annotation file; what it has of an image is read when it is asked for.

    Args:
        reader: fills a store from the file, if there is none yet.
        kind: the type of what the reader keeps of an annotation.

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

    def __init__(self, reader: CocoReader, kind: type[Record]):
        self._store = open_annotations(reader.where, reader.settings, reader)
        header, arrays = self._store.header, self._store.arrays
        count = header["objects"]
        self.where = reader.where
        self.categories = Categories.from_dict(header["categories"])
        self.sizes: np.ndarray = arrays["sizes"]
        self.images: Records[ImageEntry] = self._store.records(count, count + len(self.sizes), ImageEntry)
        self.annotated: bool = header["annotated"]
        self._kept: Records[Record] = self._store.records(0, count, kind)
        self._order, self._ends = arrays["order"], arrays["groups"]

    def _of_image(self, index: int) -> list[Record]:
        """What was kept of the annotations of an image, in the file's order."""
        start = self._ends[index - 1] if index else 0
        return [self._kept[int(k)] for k in self._order[start : self._ends[index]]]

    def require_annotations(self) -> None:
        """Raises :class:`DataError` unless the file has annotations."""
        if not self.annotated:
            raise DataError(f"{self.where} has no key 'annotations'. Is it a file of a test split?")
