"""Recognises the format of annotations by their content, not by their names."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from detrex.data.coco.json_stream import stream_members
from detrex.data.errors import DataError
from detrex.data.formats import cvat, labelme, masks, via, voc, yolo, yolo_layout
from detrex.data.formats.collected import Collected, fail, visible_files
from detrex.data.image_io import IMAGE_SUFFIXES

COCO = "COCO JSON"
_SNIFFED = 1 << 16  # bytes
_COCO_KEYS = {"info", "licenses", "images", "annotations", "categories", "classes", "type"}
_LISTS = {"Label Studio": "data", "CreateML": "image"}  # by a key of the first entry
_GZIP = b"\x1f\x8b"


class Format(NamedTuple):
    """A format of annotations other than COCO's.

    Attributes:
        name: for messages.
        image_folder: the default folder of the images of a path.
        read: reads a path into :class:`Collected`.
    """

    name: str
    image_folder: Callable[[Path], Path]
    read: Callable[[Path, Collected], None]


YOLO = Format("YOLO", yolo_layout.image_folder, yolo.read)
VOC = Format("Pascal VOC", voc.image_folder, voc.read)
LABELME = Format("LabelMe", labelme.image_folder, labelme.read)
CVAT = Format("CVAT for images", cvat.image_folder, cvat.read)
VIA = Format("VGG Image Annotator", via.image_folder, via.read)
MASKS = Format("PNG masks of instances", masks.image_folder, masks.read)


def recognise(path: Path) -> Format | None:
    """The format of a file or folder of annotations; None for COCO JSON, with or without gzip.

    Raises:
        FileNotFoundError: the path does not exist.
        DataError: the format is not known; the message says what the path is.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        there = next(p for p in path.absolute().parents if p.is_dir())
        raise FileNotFoundError(
            f"Annotation file {path} does not exist (of its path, {there} does). Check the path, and from "
            "which directory a relative one starts."
        )
    with open_unpacked(path) as file:
        start = file.read(_SNIFFED)
    text = start.decode(json.detect_encoding(start) if start else "utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("<"):
        return _of_xml(text, path)
    if text.startswith(("{", "[")) or not text:
        return _of_json(path, text)
    return _of_text(path, text)


def members_of(
    path: Path, kind: Format, images: Path | None = None, on_error: Callable[[DataError], None] = fail
) -> Iterator[tuple[str, Any]]:
    """The members of a COCO file with the same content.

    They have the form of :func:`detrex.data.coco.json_stream.stream_members`.

    Args:
        path: of the annotations.
        kind: their format.
        images: folder to which names of images are relative; None: the format's default.
        on_error: called with each error; if it returns, the entry is left out. By default, it raises.

    Raises:
        DataError: the annotations have errors.
    """
    found = Collected(images or kind.image_folder(path), on_error)
    kind.read(path, found)
    return found.members()


def open_unpacked(path: Path) -> BinaryIO:
    """Opens a file for reading; a file compressed with gzip is decompressed on the way.

    Its ``read`` raises :class:`DataError` if the file is damaged.
    """
    file = path.open("rb")
    is_packed = file.read(2) == _GZIP
    if is_packed:
        file.close()
        return cast(BinaryIO, _Unpacked(path, "rb"))
    file.seek(0)
    return file


class _Unpacked(gzip.GzipFile):
    """A file that is decompressed while it is read."""

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"Annotation file {self.name} is packed with gzip, and damaged: {error}. Was it copied "
                "completely?",
                "unreadable",
            ) from error


def _of_folder(path: Path) -> Format | None:
    if path.name == "SegmentationObject":
        return MASKS
    names = [p.name for p in path.iterdir()]
    if (path / "Annotations").is_dir() and _contains(path / "Annotations", "*.xml", r"<annotation[\s>]"):
        return VOC
    if _contains(path, "*.xml", r"<annotation[\s>]"):
        return VOC
    if _contains(path, "*.json", r'"shapes"\s*:'):
        return LABELME
    if yolo_layout.labels_beside(path).is_dir() and any(yolo_layout.labels_beside(path).rglob("*.txt")):
        return YOLO
    there = ", ".join(sorted(names)[:8]) or "nothing"
    raise DataError(
        f"{path} holds no annotations of a known format (there: {there}). Known are {KNOWN}.",
        "unknown-format",
    )


def _contains(folder: Path, pattern: str, mark: str) -> bool:
    """Whether one of the first files that match ``pattern`` contains ``mark``."""
    first = visible_files(folder, pattern)[:3]
    return any(re.search(mark, file.read_text(encoding="utf-8", errors="replace")) for file in first)


def _of_xml(text: str, path: Path) -> Format:
    root = re.search(r"<([A-Za-z_][\w.-]*)[\s>]", re.sub(r"<\?.*?\?>|<!.*?>", "", text, flags=re.DOTALL))
    name = root[1] if root else ""
    if name == "annotations":
        return CVAT
    if name == "annotation":
        raise DataError(
            f"Annotation file {path} is not JSON: it is XML of Pascal VOC, of a single image. Give the "
            f"folder of such "
            "files.",
            "unknown-format",
        )
    raise DataError(
        f"Annotation file {path} is not JSON: it is XML with the root <{name}>, which is none of the known "
        f"formats: {KNOWN}.",
        "unknown-format",
    )


def _of_json(path: Path, text: str) -> Format | None:
    if text.startswith("["):
        for name, mark in _LISTS.items():
            if re.match(rf'\[\s*\{{[^{{}}\[\]]*"{mark}"\s*:', text) and '"annotations"' in text:
                raise DataError(
                    f"Annotation file {path} is JSON of {name}. Export it in COCO's format from there.",
                    "unknown-format",
                )
        return None  # a list of classes; a reader of objects reports what is missing
    if _are_json_lines(text):
        keys = ", ".join(sorted(json.loads(text.splitlines()[0])))
        raise DataError(
            f"Annotation file {path} is JSON lines, an object a line, with the keys {keys}. Convert it "
            f"to COCO's "
            "format, one object with 'images', 'annotations' and 'categories'.",
            "unknown-format",
        )
    with open_unpacked(path) as file:
        name, value = next(stream_members(file), ("", None))
    if name in _COCO_KEYS:
        return None
    if name.startswith("_via_") or (isinstance(value, dict) and "regions" in value and "filename" in value):
        return VIA
    if name in ("version", "flags", "shapes") and '"shapes"' in text:
        raise DataError(
            f"Annotation file {path} is LabelMe's, of a single image. Give the folder of such files.",
            "unknown-format",
        )
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _are_json_lines(text: str) -> bool:
    lines = text.splitlines()
    try:
        return len(lines) > 1 and all(isinstance(json.loads(line), dict) for line in lines[:2])
    except ValueError:
        return False


def _of_text(path: Path, text: str) -> Format | None:
    if _is_json(text):
        return None  # for example a number; a reader reports what is missing
    lines = [line.strip() for line in text.splitlines()[:20] if line.strip()]
    if all(Path(line).suffix.lower() in IMAGE_SUFFIXES for line in lines[:-1] or lines):
        return YOLO
    if path.parent.parent.name == "ImageSets":
        return MASKS if path.parent.name == "Segmentation" else VOC
    if path.suffix.lower() in (".yaml", ".yml") or re.match(r"[\w-]+:(\s|$)", lines[0]):
        raise DataError(
            f"Annotation file {path} is not JSON: it is YAML. For the data.yaml of YOLO, give the "
            f"folder or list of "
            f"one split{_splits(path)}.",
            "unknown-format",
        )
    kind = "CSV" if lines[0].count(",") > 1 else "text"
    raise DataError(
        f"Annotation file {path} is not JSON: it is {kind} that begins with {lines[0][:60]!r}. Known "
        f"are {KNOWN}.",
        "unknown-format",
    )


def _splits(path: Path) -> str:
    try:
        found = yolo_layout.split_paths(path)
    except DataError:
        return ""
    return f", such as {next(iter(found.values()))}" if found else ""


KNOWN = f"{COCO} (also gzip), a folder of Roboflow, " + ", ".join(
    f.name for f in (YOLO, VOC, LABELME, CVAT, VIA, MASKS)
)
