"""LabelMe: a JSON file with shapes for each image."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from detrex.data.errors import DataError
from detrex.data.file_names import REWRITINGS
from detrex.data.formats import collected
from detrex.data.formats.collected import Collected, ImageNames, visible_files
from detrex.data.formats.shapes import circle, mask_of_png, rle_of

NAME_FILES = ("labels.txt", "classes.txt")
NO_CLASSES = ("__ignore__", "_background_")


def read(path: Path, found: Collected) -> None:
    """Reads a folder of JSON files. Shapes with the same label and group are one object.

    Args:
        path: the folder.
    """
    found.names = collected.listed_names(path, NAME_FILES)
    if found.names is not None:
        found.names = [name for name in found.names if name not in NO_CLASSES]
    images = ImageNames(found.folder)
    for file in visible_files(path, "*.json"):
        try:
            _read_file(file, images, found)
        except DataError as error:
            found.on_error(error)
    for sibling in collected.sibling_splits(path) if found.names is None else ():
        for file in visible_files(sibling, "*.json") if sibling != path else ():
            found.seen_names |= {str(shape.get("label")): None for shape in _content(file)["shapes"]}


def image_folder(path: Path) -> Path:
    """The folder of the images, which is the same folder."""
    return path


def _read_file(file: Path, images: ImageNames, found: Collected) -> None:
    content = _content(file)
    listed = REWRITINGS["last_part"](str(content.get("imagePath") or ""))
    name = images.find(listed, file)
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
        size = height, width
    else:
        size = collected.image_size(found.folder / name)
    image_id = found.add_image(name, size)
    groups: dict[Any, list[Any]] = {}
    for number, shape in enumerate(content["shapes"]):
        group = shape.get("group_id")
        key = shape.get("label"), number if group is None else f"group {group}"
        groups.setdefault(key, []).append(shape)
    for (label, number), members in groups.items():
        try:
            _add(members, str(label), size, image_id, found)
        except (TypeError, ValueError, KeyError, IndexError, OSError) as error:
            found.error(f"{file}, shape {number}", f"it cannot be read ({error}).")


def _add(shapes: list[Any], label: str, size: tuple[int, int], image_id: int, found: Collected) -> None:
    polygons, masks = [], []
    for shape in shapes:
        kind = shape.get("shape_type") or "polygon"
        points = [(float(x), float(y)) for x, y in shape["points"]]
        if kind == "mask":
            masks.append(mask_of_png(shape["mask"], points[0], size))
        elif kind == "polygon":
            polygons.append([value for point in points for value in point])
        elif kind == "rectangle":
            (x0, y0), (x1, y1) = points
            polygons.append([x0, y0, x1, y0, x1, y1, x0, y1])
        elif kind == "circle":
            (x, y), edge = points
            polygons.append(circle(x, y, math.dist((x, y), edge)))
        else:
            found.leave_out(f"shapes are no areas and are left out ({kind})")
    if masks:
        found.add_object(image_id, label, rle=rle_of(np.logical_or.reduce(masks)))
    elif polygons:
        box = None
        if [shape.get("shape_type") for shape in shapes] == ["rectangle"]:
            xs, ys = polygons[0][::2], polygons[0][1::2]
            box = [min(xs), min(ys), max(xs), max(ys)]
        found.add_object(image_id, label, box, polygons)


def _content(file: Path) -> dict[str, Any]:
    """The content of a file, with its list of shapes."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}. Was it copied completely?") from error
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise DataError(f"{file} has no list 'shapes', as files of LabelMe have.")
    return content
