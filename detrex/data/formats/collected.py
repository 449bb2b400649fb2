"""Images and objects of another format, gathered in the form of a COCO file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detrex.data.errors import DataError
from detrex.data.image_io import IMAGE_SUFFIXES, image_facts

NOTES = "notes of the reader"
"""Name of the member with what users of the annotations should know."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "train2017": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "val2017": "val",
    "test": "test",
}
"""How folders of splits are called, and which split each is."""


def fail(error: DataError) -> None:
    """What to do about an error, unless told otherwise."""
    raise error


class Collected:
    """What a reader finds. Objects are kept as compact bytes, since there may be millions.

    Args:
        folder: that names of images are relative to.
        on_error: called with each error; if it returns, the entry is left out.

    Attributes:
        folder: that names of images are relative to.
        names: the classes, where the format lists them; else they are gathered from the objects.
    """

    def __init__(self, folder: Path, on_error: Callable[[DataError], None] = fail):
        self.folder = folder
        self.on_error = on_error
        self.names: Sequence[str] | None = None
        self.seen_names: dict[str, None] = {}
        self._images: list[dict[str, Any]] = []
        self._objects: list[bytes] = []
        self._encode = msgspec.msgpack.Encoder().encode
        self._left_out: Counter[str] = Counter()

    def error(self, where: object, problem: str) -> None:
        """Reports what is wrong in a file."""
        self.on_error(DataError(f"{where}: {problem}", kind="invalid-entry"))

    def leave_out(self, what: str) -> None:
        """Notes something that is no object, such as a line."""
        self._left_out[what] += 1

    def add_image(self, file_name: str, size: tuple[int, int] | None = None) -> int:
        """An image; returns its id.

        Args:
            file_name: relative to the folder of the images.
            size: (height, width) in pixels; None: to be read from the image.
        """
        entry: dict[str, Any] = {"id": len(self._images) + 1, "file_name": file_name}
        if size is not None:
            entry["height"], entry["width"] = size
        self._images.append(entry)
        return entry["id"]

    def add_object(
        self,
        image_id: int,
        name: str,
        box: Sequence[float] | None = None,
        polygons: Sequence[Sequence[float]] | None = None,
        rle: dict[str, Any] | None = None,
        crowd: bool = False,
    ) -> None:
        """An object.

        Args:
            image_id: of :meth:`add_image`.
            name: of its class.
            box: absolute xyxy in pixels.
            polygons: lists of x, y, x, y, ... in pixels.
            rle: COCO's run-length encoding, instead of polygons.
            crowd: whether it is no target, and ignored in evaluation.
        """
        if self.names is None:
            self.seen_names[name] = None
        shape: dict[str, Any] = {}
        if box is not None:
            shape["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        if polygons or rle:
            shape["segmentation"] = rle or [list(polygon) for polygon in polygons or ()]
        self._objects.append(self._encode([image_id, name, crowd, shape]))

    def members(self) -> Iterator[tuple[str, Any]]:
        """What a COCO file would hold, in the form of :func:`detrex.data.coco.json_stream.stream_members`."""
        names = list(self.names) if self.names is not None else sorted(self.seen_names)
        # Names that a list says twice are classes of their own; objects are of the first one.
        ids = {name: k for k, name in reversed(list(enumerate(names, start=1)))}
        yield "categories", [{"id": k, "name": name} for k, name in enumerate(names, start=1)]
        yield NOTES, [f"{count} {what}" for what, count in self._left_out.items()]
        yield "images", iter(self._images)
        yield "annotations", self._annotations(ids)

    def _annotations(self, ids: dict[str, int]) -> Iterator[dict[str, Any]]:
        for number, packed in enumerate(self._objects, start=1):
            image_id, name, crowd, shape = msgspec.msgpack.decode(packed)
            if name not in ids:
                image = self._images[image_id - 1]["file_name"]
                self.error(
                    image, f"an object has the class {name!r}, which is not listed ({', '.join(ids)})."
                )
                continue
            entry = {"id": number, "image_id": image_id, "category_id": ids[name], "iscrowd": int(crowd)}
            yield {**entry, **shape}


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels, from the file's header, as the picture is shown.

    Raises:
        DataError: there is no such file, or it is no image.
    """
    return image_facts(path).upright


def images_by_stem(folder: Path) -> dict[str, str]:
    """Names of the images in a folder and its subfolders, relative to it, by their names without type."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            found[path.relative_to(folder).with_suffix("").as_posix()] = path.relative_to(folder).as_posix()
    return found


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, without the spaces around them."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """The files of a pattern in a folder, in order; without those of macOS, which begin with a dot."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


class ImageNames:
    """The images of a folder, by which those that annotations name are found.

    Args:
        folder: searched with its subfolders.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._by_stem = images_by_stem(folder)
        self._names = set(self._by_stem.values())

    def find(self, listed: str, annotations: Path) -> str:
        """The name of an image, relative to the folder.

        Args:
            listed: how the annotations call it; may be empty.
            annotations: the image's own file; without a listed name, the names go together.

        Raises:
            DataError: there is no such image.
        """
        if listed in self._names:
            return listed
        for stem in (annotations.stem, Path(listed).stem):
            if stem in self._by_stem:
                return self._by_stem[stem]
        name = listed or annotations.stem
        raise DataError(f"{annotations}: its image, {name!r}, is not in {self.folder}.", "image-missing")


def sibling_splits(folder: Path) -> list[Path]:
    """The folders beside one that are named as splits, itself included; itself alone if it is not."""
    if folder.name.lower() not in SPLIT_NAMES or not folder.parent.is_dir():
        return [folder]
    return sorted(p for p in folder.parent.iterdir() if p.is_dir() and p.name.lower() in SPLIT_NAMES)


def listed_names(folder: Path, file_names: Sequence[str]) -> list[str] | None:
    """Names of classes, one a line, in the first file of these names in a folder or up to three above it."""
    for place in (folder, *list(folder.absolute().parents)[:3]):
        for name in file_names:
            if (path := place / name).is_file():
                return read_lines(path)
    return None
