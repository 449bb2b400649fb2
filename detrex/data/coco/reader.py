"""Reads COCO files entry by entry: images, classes, and what both kinds of annotations share."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from detrex.data.coco.cache import Content, Members
from detrex.data.coco.categories import CLASS_KEYS, category_warnings, parse_categories
from detrex.data.coco.keys import IMAGE, ImageId, read_entry, short
from detrex.data.coco.store import StoreWriter
from detrex.data.errors import DataError
from detrex.data.file_names import check_name
from detrex.data.formats import NOTES
from detrex.data.image_io import Orientation, shown_size
from detrex.structures import Categories

_SHOWN = 5


@dataclass(frozen=True)
class ReadOptions:
    """Options on which the content of a COCO file depends.

    Attributes:
        images: folder of the images, for sizes that the file does not list.
        orientation: the picture on which annotations were drawn, see :func:`detrex.data.image_io.read_image`.
        leave_folder: whether names of files may be absolute or lead out of their folder.
    """

    images: Path | None = None
    orientation: Orientation = "auto"
    leave_folder: bool = False

    def settings(self) -> dict[str, Any]:
        """The options as plain data, for the cache."""
        folder = None if self.images is None else str(self.images.absolute())
        return {"images": folder, "orientation": self.orientation, "leave_folder": self.leave_folder}


class ImageEntry(msgspec.Struct, array_like=True, frozen=True):
    """An image that a file lists."""

    image_id: ImageId
    file_name: str


class ImageRow(NamedTuple):
    """Index of an image in the file, and its (height, width) in pixels."""

    place: int
    size: tuple[int, int]


class Tally:
    """Counts things and keeps the names of the first few, for a warning.

    Args:
        what: name of the things that are counted.
        told: called for each of them.
    """

    def __init__(self, what: str, told: Callable[[], None] | None = None):
        self.what, self.count, self._told = what, 0, told
        self._first: list[str] = []

    def add(self, name: Callable[[], str]) -> None:
        """Counts one; ``name`` is called only if the name will be shown."""
        self.count += 1
        if self._told is not None:
            self._told()
        if self.count <= _SHOWN:
            self._first.append(name())

    def message(self) -> str:
        more = ", ..." if self.count > _SHOWN else ""
        return f"{self.count} {self.what} ({', '.join(self._first)}{more})"


class CocoReader:
    """Reads a COCO file into a store: records of the annotations, then of the images.

    Subclasses define what is kept of an annotation, by :meth:`keep`, and what is stored in addition, by
    :meth:`summary`. Arrays of the store: ``sizes`` (M, 2) int32, height and width of each image; ``order``
    (N,) int32, indices of annotations ordered by image; ``groups`` (M,) int64, the end of each image in
    ``order``.

    Args:
        where: the file.
        options: see :class:`ReadOptions`.
    """

    kind = ""
    """Kind of the content, for the cache."""

    def __init__(self, where: Path, options: ReadOptions):
        self.where, self.options = where, options

    @property
    def settings(self) -> dict[str, Any]:
        """The settings on which the store depends, besides the file."""
        return {"kind": self.kind, **self.options.settings()}

    def __call__(self, members: Members, writer: StoreWriter) -> Content:
        """Fills the store; see :func:`detrex.data.coco.cache.open_annotations`.

        Returns:
            Its header, with ``categories``, ``annotated`` (whether there are annotations), ``objects`` (the
            number of their records) and the entries of :meth:`summary`; and its arrays.

        Raises:
            DataError: the file has errors.
        """
        self.start()
        owners = array("i")
        content = self._read(members, writer, owners)
        categories = self.checked_categories(parse_categories(content, self.where))
        self.warnings += [*self.notes, *category_warnings(categories)]
        self.check_classes(content)
        objects = len(writer)
        for image_id, name in zip(self.places, self.names, strict=True):
            writer.add(ImageEntry(image_id, name))
        self._check_names()
        owner = np.asarray(owners)
        sizes = np.asarray(self.sizes).reshape(-1, 2)
        summary, arrays = self.summary(categories, owner)
        header = {
            "categories": categories.to_dict(),
            "annotated": self.annotated,
            "objects": objects,
            "warnings": self.warnings,
            **summary,
        }
        grouped: dict[str, np.ndarray] = {
            "sizes": sizes,
            "order": np.argsort(owner, kind="stable").astype(np.int32),
            "groups": np.cumsum(np.bincount(owner, minlength=len(sizes)), dtype=np.int64),
        }
        return header, {**grouped, **arrays}

    def start(self) -> None:
        """Resets the reader: if the cache turns out to be full, the file is parsed a second time."""
        self.places: dict[ImageId, int] = {}
        self.sizes = array("i")
        self.annotated = False
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.names: list[str] = []
        self.first_of_category: dict[int, str] = {}

    def tally(self, what: str, kind: str) -> Tally:
        """A tally of something odd, whose kind is a key of :data:`detrex.data.check.findings.KINDS`."""
        del kind  # used by readers that list everything
        return Tally(what)

    def keep(self, annotation: Any) -> tuple[int, Any] | None:
        """The index of an annotation's image, and the record to keep; None to keep nothing.

        Raises:
            DataError: the annotation is wrong.
        """
        raise NotImplementedError

    def check_classes(self, content: dict[str, Any]) -> None:
        """Adds oddities in the lists of classes to ``warnings``.

        Args:
            content: the file's values of :data:`detrex.data.coco.categories.CLASS_KEYS`.
        """

    def summary(
        self, categories: Categories, owners: np.ndarray
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Additional entries of the header, and additional arrays.

        Args:
            categories: of the file.
            owners: (N,) int32, the index of each record's image.
        """
        raise NotImplementedError

    def row_of(self, image_id: ImageId, name: Callable[[], str]) -> ImageRow:
        """The image with this id, which may be a number in one place and text in another.

        Raises:
            DataError: there is no such image; ``name`` says which entry refers to it.
        """
        place = self.places.get(image_id)
        if place is None and (other := other_type(image_id)) is not None:
            place = self.places.get(other)
        if place is None:
            raise DataError(
                f"{self.where}: the image of {name()} is not listed under 'images'. Add the image, or take "
                "the annotation out.",
                "unknown-image",
            )
        return ImageRow(place, (self.sizes[2 * place], self.sizes[2 * place + 1]))

    def use_category(self, category_id: int, name: Callable[[], str]) -> None:
        """Notes the category id of the object called ``name``, to be checked at the end."""
        if category_id not in self.first_of_category:
            self.first_of_category[category_id] = name()

    def _read(self, members: Members, writer: StoreWriter, owners: array) -> dict[str, Any]:
        """Reads images and annotations; returns the lists of classes."""
        found: dict[str, Any] = {}
        names, kept = set(), False
        for key, value in members():
            names.add(key)
            if key == "images":
                self._read_images(value)
            elif key in CLASS_KEYS:
                found[key] = list(value) if isinstance(value, Iterator) else value
            elif key == NOTES:
                self.notes += value
            elif key == "annotations" and self.places:
                self._read_annotations(value, writer, owners)
                kept = True
        if not self.places:
            raise DataError(self._no_images(names), "no-images")
        self.annotated = "annotations" in names
        if self.annotated and not kept:
            for key, value in members():  # again, now that the images are known
                if key == "annotations":
                    self._read_annotations(value, writer, owners)
        return found

    def _items(self, key: str, value: Any) -> Iterator[Any]:
        if not isinstance(value, Iterator):
            raise DataError(f"{self.where}: '{key}' is {short(value)}; expected is a list.")
        return value

    def _no_images(self, names: set[str]) -> str:
        there = f"its keys are {', '.join(sorted(names)[:10])}" if names else "it holds no keys"
        return (
            f"{self.where} lists no images: a key 'images' with at least one entry is needed ({there}). Is "
            "it a "
            "file in COCO's format?"
        )

    def _read_images(self, listed: Any) -> None:
        for image in self._items("images", listed):
            self.add_image(image)

    def add_image(self, image: Any) -> None:
        """Adds an entry of ``images``.

        Raises:
            DataError: the entry is wrong.
        """
        image_id, file_name, url, height, width = read_entry(image, IMAGE, "image", str(self.where))
        name = file_name or (url and self._name_in(url))
        if not name:
            raise DataError(f"{self.where}: image {short(image)} has no 'file_name' (expected: a name).")
        check_name(name, f"{self.where}: image id {image_id}", self.options.leave_folder)
        if image_id in self.places or other_type(image_id) in self.places:
            raise DataError(
                f"{self.where}: image id {image_id} occurs twice. Every image needs an id of its own.",
                "image-id-twice",
            )
        size = self._size(name, image_id, height, width)
        self.places[image_id] = len(self.places)
        self.sizes.extend(size)
        self.names.append(name)

    def _name_in(self, url: str) -> str:
        """The file name in an address, with the folder of the address if such a folder exists (LVIS)."""
        *_, folder, name = f"/{url}".rsplit("/", 2)
        images = self.options.images
        return f"{folder}/{name}" if folder and images and (images / folder).is_dir() else name

    def _size(self, name: str, image_id: ImageId, height: int | None, width: int | None) -> tuple[int, int]:
        if height is not None and width is not None and self.options.orientation != "shown":
            return height, width
        if self.options.images is None:
            raise DataError(
                f"{self.where}: image id {image_id} ({name}) has no 'height' and 'width' (expected: "
                "numbers of "
                "pixels). Add them, or give the folder of the images, as 'images', to have them read there.",
                "size-missing",
            )
        return shown_size(self.options.images / name, self.options.orientation, image_id)

    def _read_annotations(self, listed: Any, writer: StoreWriter, owners: array) -> None:
        for annotation in self._items("annotations", listed):
            kept = self.keep(annotation)
            if kept is not None:
                owners.append(kept[0])
                writer.add(kept[1])

    def checked_categories(self, categories: Categories) -> Categories:
        """The classes of the file.

        Raises:
            DataError: an object has a class that is not listed.
        """
        for category_id, name in self.first_of_category.items():
            if category_id not in categories.index_of:
                raise DataError(
                    f"{self.where}: {name} has category id {category_id}, which is not listed under "
                    f"'categories' (listed: {_first(categories.ids)}). Add the category, or correct the id.",
                    "unknown-category",
                )
        return categories

    def _check_names(self) -> None:
        if len(set(self.names)) == len(self.names):
            return
        twice = self.tally("images are listed under a second id", "image-listed-twice")
        for name, count in Counter(self.names).items():
            for _ in range(count - 1):
                twice.add(partial(str, name))
        self.warnings.append(twice.message())


def other_type(image_id: ImageId) -> ImageId | None:
    """An id of the other type: text for a number, a number for text; None if text is not a number."""
    if isinstance(image_id, int):
        return str(image_id)
    return int(image_id) if image_id.isdecimal() and str(int(image_id)) == image_id else None


def class_index(categories: Categories, category_ids: np.ndarray) -> np.ndarray:
    """Class indices (N,) int32 of category ids (N,), all of which are listed."""
    ids = np.array(categories.ids)
    by_id = np.argsort(ids)
    return by_id.astype(np.int32)[np.searchsorted(ids, category_ids, sorter=by_id)]


def _first(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
