"""Reads COCO files an annotation at a time, and checks them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detrex.data.annotation_cache import Members
from detrex.data.annotation_files import CLASS_KEYS, parse_categories, require_keys
from detrex.data.annotation_store import StoreWriter
from detrex.data.errors import DataError
from detrex.structures import Categories

_SHOWN = 5


class Image(NamedTuple):
    """An image that a file lists: its place in the list, its name, and its size in pixels."""

    index: int
    file_name: str
    height: int
    width: int


class Tally:
    """Counts things and keeps the names of the first few, for a warning."""

    def __init__(self, what: str):
        self._what, self._first, self.count = what, [], 0

    def add(self, name: Any) -> None:
        self.count += 1
        if self.count <= _SHOWN:
            self._first.append(str(name))

    def message(self) -> str:
        more = ", ..." if self.count > _SHOWN else ""
        return f"{self.count} {self._what} ({', '.join(self._first)}{more})"


class CocoParser:
    """Parses a COCO file into a store: ``images``, their ``sizes`` and, grouped by image, ``annotations``.

    Subclasses keep what they need of an annotation. Category ids are kept as they are: a file may list its
    categories last.

    Args:
        where: the file.
        targets: whether to read annotations at all.
        skip_empty: whether to leave out images of whose annotations nothing is kept.
    """

    def __init__(self, where: Path, targets: bool, skip_empty: bool = False):
        self.where, self.targets, self.skip_empty = where, targets, targets and skip_empty

    def start(self) -> None:
        """Forgets what was read: where the cache turns out to be full, a file is parsed a second time."""
        self.images: dict[Any, Image] = {}
        self._first_of_category: dict[int, str] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What the store depends on besides the file."""
        return {"parser": type(self).__name__, "targets": self.targets, "skip_empty": self.skip_empty}

    def __call__(self, members: Members, writer: StoreWriter) -> dict[str, Any]:
        """Fills the store; see :func:`detrex.data.annotation_cache.open_annotations`.

        Returns:
            Its header: the ``categories``, and ``warnings`` that every user of the file should see.

        Raises:
            DataError: the file has errors.
        """
        self.start()
        images_of = array("q")
        with writer.items("annotations") as add:
            categories = parse_categories(self._read(members, add, images_of), self.where)
        self._check_categories(categories)
        tallies = [*self.tallies(), self._write_images(writer, images_of)]
        warnings = [tally.message() for tally in tallies if tally.count]
        return {"categories": categories.to_dict(), "warnings": warnings}

    def keep(self, annotation: dict[str, Any]) -> Any | None:
        """What the data set needs of an annotation, as plain data; None: nothing.

        Raises:
            DataError: it is wrong.
        """
        raise NotImplementedError

    def tallies(self) -> list[Tally]:
        """What users of the file are to be told."""
        raise NotImplementedError

    def use_category(self, category_id: int, name: str) -> None:
        """Notes that the object of this name has a category id, to be checked at the end."""
        self._first_of_category.setdefault(category_id, name)

    def _read(self, members: Members, add: Callable[[Any], None], images_of: array) -> dict[str, list]:
        """Reads images and annotations; returns the lists of classes."""
        found: dict[str, list] = {}
        seen = set()
        for key, value in members():
            seen.add(key)
            if key == "images":
                self._read_images(value)
            elif key in CLASS_KEYS:
                found[key] = list(self._items(key, value))
            elif key == "annotations" and self.images and self.targets:
                self._read_annotations(value, add, images_of)
                seen.add("kept annotations")
        if not self.images:
            raise DataError(
                f"{self.where} lists no images: a key 'images' with at least one entry is needed."
            )
        if self.targets and "annotations" not in seen:
            raise DataError(f"{self.where} has no key 'annotations'. Is it a file of a test split?")
        if self.targets and "kept annotations" not in seen:
            for key, value in members():  # again, now that the images are known
                if key == "annotations":
                    self._read_annotations(value, add, images_of)
        return found

    def _items(self, key: str, value: Any) -> Iterator[Any]:
        if not isinstance(value, Iterator):
            raise DataError(f"{self.where}: '{key}' is not a list.")
        return value

    def _read_images(self, listed: Any) -> None:
        for image in self._items("images", listed):
            require_keys(image, ("id", "file_name", "height", "width"), "image", self.where)
            image_id, height, width = image["id"], image["height"], image["width"]
            if image_id in self.images:
                raise DataError(
                    f"{self.where}: image id {image_id} occurs twice. Every image needs an id of its own."
                )
            if not (height >= 1 and width >= 1):
                raise DataError(
                    f"{self.where}: image id {image_id} ({image['file_name']}) has height {height} and "
                    f"width {width}. Correct them."
                )
            self.images[image_id] = Image(len(self.images), image["file_name"], height, width)

    def _read_annotations(self, listed: Any, add: Callable[[Any], None], images_of: array) -> None:
        for annotation in self._items("annotations", listed):
            kept = self.keep(annotation)
            if kept is not None:
                images_of.append(self.images[annotation["image_id"]].index)
                add(kept)

    def _check_categories(self, categories: Categories) -> None:
        for category_id, name in self._first_of_category.items():
            if category_id not in categories.index_of:
                raise DataError(
                    f"{self.where}: {name} has category id {category_id}, which is not listed under "
                    f"'categories' (listed: {_some(categories.ids)}). Add the category, or correct the id."
                )

    def _write_images(self, writer: StoreWriter, images_of: array) -> Tally:
        """Writes images, sizes and groups; returns the images left out."""
        owners = np.asarray(images_of, np.int64)
        used = np.full(len(self.images), not self.skip_empty)
        used[owners] = True
        left_out, sizes = Tally("images without objects are left out"), []
        with writer.items("images") as add:
            for image_id, image in self.images.items():
                if used[image.index]:
                    add({"image_id": image_id, "file_name": image.file_name})
                    sizes.append((image.height, image.width))
                else:
                    left_out.add(image.file_name)
        writer.array("sizes", np.array(sizes, np.int32).reshape(-1, 2))
        writer.groups("annotations", (np.cumsum(used) - 1)[owners], len(sizes))
        return left_out


def _some(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
