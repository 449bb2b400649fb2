"""Gathers images and objects of another format in the form of a COCO file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detrex.data.errors import DataError
from detrex.data.image_io import IMAGE_SUFFIXES, image_facts

NOTES = "notes of the reader"
"""Name of the member with notes for users of the annotations."""

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
"""Names of folders of splits, each with its split."""


def fail(error: DataError) -> None:
    """Raises an error, which is the default of ``on_error``."""
    raise error


class Collected:
    """The images and objects that a reader finds. Objects are kept as compact bytes: there may be millions.

    Args:
        folder: to which names of images are relative.
        on_error: called with each error; if it returns, the entry is left out.

    Attributes:
        folder: to which names of images are relative.
        names: the classes, if the format lists them; otherwise, they are gathered from the objects.
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
        """Reports a fault in a file."""
        self.on_error(DataError(f"{where}: {problem}", kind="invalid-entry"))

    def leave_out(self, what: str) -> None:
        """Notes something that is not an object, such as a line."""
        self._left_out[what] += 1

    def add_image(self, file_name: str, size: tuple[int, int] | None = None) -> int:
        """Adds an image and returns its id.

        Args:
            file_name: relative to the folder of the images.
            size: (height, width) in pixels; None to read it from the image.
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
        """Adds an object.

        Args:
            image_id: from :meth:`add_image`.
            name: of its class.
            box: absolute xyxy in pixels.
            polygons: lists of x, y, x, y, ... in pixels.
            rle: COCO's run-length encoding, instead of polygons.
            crowd: whether it is a crowd, which is not a target, and which evaluation ignores.
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
        """The members of an equal COCO file, like :func:`detrex.data.coco.json_stream.stream_members`."""
        names = list(self.names) if self.names is not None else sorted(self.seen_names)
        # A name that is listed twice makes two classes; objects belong to the first one.
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
    """(height, width) in pixels of the picture as it is shown, from the file's header.

    Raises:
        DataError: there is no such file, or it is not an image.
    """
    return image_facts(path).upright


def images_by_stem(folder: Path) -> dict[str, str]:
    """Images in a folder and its subfolders: names relative to it, by name without type."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            found[path.relative_to(folder).with_suffix("").as_posix()] = path.relative_to(folder).as_posix()
    return found


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, without surrounding spaces."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder that match a pattern, in order, without those that begin with a dot (macOS)."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


class ImageNames:
    """The images of a folder, to find those that annotations name.

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
            listed: its name in the annotations; may be empty.
            annotations: the file of the image's annotations, whose name is used if ``listed`` is empty.

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
    """A folder and those beside it that are named like splits; only itself if it is not named like one."""
    if folder.name.lower() not in SPLIT_NAMES or not folder.parent.is_dir():
        return [folder]
    return sorted(p for p in folder.parent.iterdir() if p.is_dir() and p.name.lower() in SPLIT_NAMES)


def listed_names(folder: Path, file_names: Sequence[str]) -> list[str] | None:
    """Names of classes, one per line, from the first such file in a folder or up to three levels above it."""
    for place in (folder, *list(folder.absolute().parents)[:3]):
        for name in file_names:
            if (path := place / name).is_file():
                return read_lines(path)
    return None
