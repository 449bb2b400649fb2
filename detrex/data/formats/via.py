"""VGG Image Annotator (VIA): one JSON file with all images, whose regions have attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detrex.data.coco.json_stream import read_json
from detrex.data.errors import DataError
from detrex.data.formats.collected import Collected, image_size, sibling_splits
from detrex.data.formats.shapes import circle

_CLASS_ATTRIBUTES = ("label", "class", "category", "name", "type", "object")


def read(path: Path, found: Collected) -> None:
    """Reads a project, or its exported annotations.

    The class of a region is its attribute ``label``, ``class``, ``category``, ``name``, ``type`` or
    ``object``, or else its only attribute; regions without attributes have the class ``object``.

    Args:
        path: the JSON file; its images are in the same folder.
    """
    for number, image in enumerate(_images(path)):
        name = image.get("filename")
        if not isinstance(name, str) or not name:
            found.error(f"{path}, image {number}", "it has no 'filename'.")
            continue
        try:
            image_id = found.add_image(name, image_size(found.folder / name))
        except DataError as error:
            found.on_error(error)
            continue
        for index, region in enumerate(_regions(image), start=1):
            try:
                _add(region, image_id, found)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                found.error(f"{path}, {name}, region {index}", f"it cannot be read ({error!r}).")
    # Classes have the same numbers in all splits, whichever regions each split has.
    for folder in sibling_splits(path.parent):
        if folder != path.parent and (folder / path.name).is_file():
            regions = (region for image in _images(folder / path.name) for region in _regions(image))
            found.seen_names |= {class_of(region): None for region in regions if isinstance(region, dict)}


def image_folder(path: Path) -> Path:
    """The folder of the images."""
    return path.parent


def _add(region: dict[str, Any], image_id: int, found: Collected) -> None:
    shape, label = region["shape_attributes"], class_of(region)
    kind = shape.get("name")
    if kind in ("polygon", "polyline"):
        pairs = zip(map(float, shape["all_points_x"]), map(float, shape["all_points_y"]), strict=True)
        found.add_object(image_id, label, polygons=[[value for pair in pairs for value in pair]])
    elif kind == "rect":
        x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
        found.add_object(image_id, label, [x, y, x + width, y + height])
    elif kind in ("circle", "ellipse"):
        radii = (shape["r"], shape["r"]) if kind == "circle" else (shape["rx"], shape["ry"])
        found.add_object(
            image_id, label, polygons=[circle(float(shape["cx"]), float(shape["cy"]), *map(float, radii))]
        )
    else:
        found.leave_out(f"shapes are no areas and are left out ({kind})")


def class_of(region: dict[str, Any]) -> str:
    """The class of a region."""
    attributes = region.get("region_attributes") or {}
    known = [key for key in _CLASS_ATTRIBUTES if key in attributes]
    key = known[0] if known else next(iter(attributes), None)
    value = attributes.get(key)
    if isinstance(value, dict):  # check boxes: {"cat": true}
        value = next((name for name, chosen in value.items() if chosen), None)
    return str(value) if value else "object"


def _images(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    images = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
    return [image for image in images.values() if isinstance(image, dict)]


def _regions(image: dict[str, Any]) -> list[Any]:
    regions = image.get("regions") or []
    return list(regions.values()) if isinstance(regions, dict) else regions
