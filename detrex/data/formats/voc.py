"""Pascal VOC: an XML file for each image, with boxes and, from some tools, polygons."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from detrex.data.errors import DataError
from detrex.data.formats.collected import (
    Collected,
    ImageNames,
    image_size,
    listed_names,
    read_lines,
    sibling_splits,
    visible_files,
)
from detrex.data.formats.xml_values import number, parse_xml

NAME_FILES = ("classes.txt", "labels.txt", "predefined_classes.txt")
_COORDINATE = re.compile(r"([xy])(\d+)")


def read(path: Path, found: Collected) -> None:
    """Reads a split.

    Difficult objects become crowds, because by the rules of VOC they are neither missed nor wrong.

    Args:
        path: folder of XML files, the root of a VOC data set, or one of its lists
            (``ImageSets/Main/train.txt``).
    """
    files = xml_files(path)
    annotations = files[0].parent if files else path
    found.names = listed_names(annotations, NAME_FILES)
    images = ImageNames(found.folder)
    for file in files:
        try:
            _read_file(file, images, found)
        except DataError as error:
            found.on_error(error)
    if found.names is None:
        # Classes have the same numbers in all splits, whichever objects each split has.
        for split in sibling_splits(annotations) if path.is_dir() else [annotations]:
            for file in visible_files(split, "*.xml") if split != annotations or not path.is_dir() else ():
                found.seen_names |= dict.fromkeys(_names(file))


def image_folder(path: Path) -> Path:
    """The folder of the images of a split."""
    root = path if path.is_dir() else path.absolute().parents[2]
    images = (root.parent if root.name == "Annotations" else root) / "JPEGImages"
    return images if images.is_dir() else root


def xml_files(path: Path) -> list[Path]:
    """The annotation files of a folder, a root or a list."""
    if not path.is_dir():
        ids = (line.split() for line in read_lines(path))
        # Lists of a class say -1 for images without it.
        chosen = [row[0] for row in ids if row[-1] != "-1"]
        return [path.absolute().parents[2] / "Annotations" / f"{image_id}.xml" for image_id in chosen]
    return visible_files(path / "Annotations" if (path / "Annotations").is_dir() else path, "*.xml")


def _read_file(file: Path, images: ImageNames, found: Collected) -> None:
    root = parse_xml(file)
    name = images.find(root.findtext("filename") or "", file)
    size = (number(root, "size/height", file), number(root, "size/width", file))
    image_id = found.add_image(
        name, (int(size[0]), int(size[1])) if min(size) >= 1 else image_size(found.folder / name)
    )
    for place, entry in enumerate(root.iter("object"), start=1):
        try:
            _read_object(entry, f"{file}, object {place}", image_id, found)
        except DataError as error:
            found.on_error(error)


def _read_object(entry: ElementTree.Element, where: str, image_id: int, found: Collected) -> None:
    name = (entry.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{where} has no <name>.")
    crowd = (entry.findtext("difficult") or "0").strip() == "1"
    if (polygon := entry.find("polygon")) is not None:
        return found.add_object(image_id, name, polygons=[_points(polygon, where)], crowd=crowd)
    if entry.find("bndbox") is None:
        raise DataError(f"{where} has neither <bndbox> nor <polygon>.")
    x0, y0, x1, y1 = (number(entry, f"bndbox/{key}", where, None) for key in ("xmin", "ymin", "xmax", "ymax"))
    # VOC counts pixels from 1, and boxes include their last pixel.
    return found.add_object(image_id, name, [max(x0 - 1, 0), max(y0 - 1, 0), x1, y1], crowd=crowd)


def _points(polygon: ElementTree.Element, where: str) -> list[float]:
    """Coordinates x, y, x, y, ... from <x1>, <y1>, <x2>, ..., or from <pt><x/><y/></pt>."""
    if polygon.find("pt") is not None:
        return [number(point, axis, where, None) for point in polygon.iter("pt") for axis in "xy"]
    tags = [match for child in polygon if (match := _COORDINATE.fullmatch(child.tag))]
    ordered = sorted(tags, key=lambda match: (int(match[2]), match[1]))
    return [number(polygon, match[0], where, None) for match in ordered]


def _names(file: Path) -> list[str]:
    try:
        return [name.strip() for entry in parse_xml(file).iter("object") if (name := entry.findtext("name"))]
    except DataError:
        return []  # reported when its split is read
