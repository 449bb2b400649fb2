"""CVAT for images 1.1: one XML file with all images and their shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from detrex.data.errors import DataError
from detrex.data.formats.collected import Collected
from detrex.data.formats.shapes import circle, empty_mask, rle_of


def read(path: Path, found: Collected) -> None:
    """Reads an XML file, image by image.

    Args:
        path: ``annotations.xml``; its images are in the folder ``images`` beside it, or directly beside it.
    """
    names: list[str] = []
    for element in _elements(path):
        if element.tag == "label" and (name := element.findtext("name")):
            names += [name] if name not in names else []
        elif element.tag == "track":
            raise DataError(
                f"{path} has tracks, as CVAT for video writes them, whose frames are not named. Export the "
                "task as 'CVAT for images' or COCO."
            )
        elif element.tag == "image":
            found.names = found.names or names or None
            _read_image(element, path, found)
            element.clear()


def image_folder(path: Path) -> Path:
    """The folder of the images."""
    images = path.parent / "images"
    return images if images.is_dir() else path.parent


def _read_image(element: ElementTree.Element, path: Path, found: Collected) -> None:
    name = element.get("name", "")
    where = f"{path}, image {name!r}"
    try:
        size = int(element.get("height", "")), int(element.get("width", ""))
        image_id = found.add_image(name, size)
    except ValueError:
        return found.error(where, "its 'width' and 'height' are no numbers.")
    for number, shape in enumerate(element, start=1):
        try:
            _read_shape(shape, size, image_id, found)
        except (ValueError, KeyError) as error:
            found.error(f"{where}, shape {number} ({shape.tag})", f"it cannot be read ({error}).")
    return None


def _read_shape(shape: ElementTree.Element, size: tuple[int, int], image_id: int, found: Collected) -> None:
    label = shape.get("label", "")
    value: dict[str, float] = {}
    if shape.tag in ("box", "ellipse", "mask"):
        value = {key: float(text) for key, text in shape.attrib.items() if _is_number(text)}
    if float(shape.get("rotation", 0)):
        found.leave_out("boxes are turned, and taken without their turn")
    if shape.tag == "box":
        found.add_object(image_id, label, [value["xtl"], value["ytl"], value["xbr"], value["ybr"]])
    elif shape.tag == "polygon":
        pairs = [point.split(",") for point in shape.attrib["points"].split(";")]
        found.add_object(image_id, label, polygons=[[float(number) for x, y in pairs for number in (x, y)]])
    elif shape.tag == "ellipse":
        outline = circle(value["cx"], value["cy"], value["rx"], value["ry"])
        found.add_object(image_id, label, polygons=[outline])
    elif shape.tag == "mask":
        found.add_object(image_id, label, rle=_rle(shape, value, size))
    elif shape.tag in ("polyline", "points", "skeleton", "cuboid"):
        found.leave_out(f"shapes are no areas and are left out ({shape.tag})")


def _rle(shape: ElementTree.Element, value: dict[str, float], size: tuple[int, int]) -> dict[str, Any]:
    """Converts CVAT's runs, row by row within a box, to COCO's, column by column."""
    runs = [int(run) for run in shape.attrib["rle"].split(",")]
    left, top, width, height = (int(value[key]) for key in ("left", "top", "width", "height"))
    inside = left >= 0 and top >= 0 and left + width <= size[1] and top + height <= size[0]
    if min(runs) < 0 or sum(runs) != width * height or not inside:
        raise ValueError("the runs of its mask do not fit")
    mask = empty_mask(size)
    mask[top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2, runs).reshape(
        height, width
    )
    return rle_of(mask)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).isdecimal()


def _elements(path: Path) -> Iterator[ElementTree.Element]:
    try:
        for _, element in ElementTree.iterparse(path):
            yield element
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not XML: {error}. Was it copied completely?") from error
