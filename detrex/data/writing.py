"""Writes COCO files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from detrex.data.coco.object_reader import CocoObject
from detrex.data.coco.objects import CocoFile
from detrex.data.coco.reader import ReadOptions
from detrex.data.errors import DataError
from detrex.data.sources import Source
from detrex.runtime.files import replaced_file

_DIGITS = 3  # digits of coordinates after the point


def write_coco(source: Source, target: Path, overwrite: bool = False) -> tuple[int, int]:
    """Writes the objects that training would use, and crowds, as a COCO instance file.

    Args:
        source: a split of instances.
        target: the file.
        overwrite: whether to replace an existing file.

    Returns:
        The numbers of images and objects written.

    Raises:
        DataError: the annotations have errors or are not of instances, or the file exists.
    """
    if source.task != "instances":
        raise DataError(
            f"{source.annotations} has annotations for {source.task} segmentation, which are pixels; "
            f"they are read as "
            "they are"
        )
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists. Give another folder, or --overwrite.")
    file = CocoFile(source.annotations, ReadOptions(source.images))
    file.require_objects(masks=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(target) as path, path.open("w", encoding="utf-8") as out:
        images = [
            {"id": k, "file_name": entry.file_name, "height": int(h), "width": int(w)}
            for k, (entry, (h, w)) in enumerate(zip(file.images, file.sizes, strict=True), start=1)
        ]
        categories = zip(file.categories.ids, file.categories.names, strict=True)
        out.write(f'{{"images": {json.dumps(images)},\n')
        out.write(f'"categories": {json.dumps([{"id": i, "name": name} for i, name in categories])},\n')
        out.write('"annotations": [')
        count = 0
        for count, entry in enumerate(_entries(file), start=1):
            out.write((",\n" if count > 1 else "\n") + json.dumps({"id": count, **entry}))
        out.write("\n]}\n")
    return len(images), count


def _entries(file: CocoFile) -> Iterator[dict[str, Any]]:
    for index, size in enumerate(file.sizes.tolist()):
        for found in file.objects(index, masks=False):
            yield {"image_id": index + 1, **object_entry(found, size)}


def object_entry(found: CocoObject, size: tuple[int, int]) -> dict[str, Any]:
    """An object as COCO files list it, without ids.

    Args:
        found: the object.
        size: (height, width) of its image in pixels.
    """
    x0, y0, x1, y1 = found.box
    entry: dict[str, Any] = {
        "category_id": found.category_id,
        "iscrowd": int(found.is_crowd),
        "bbox": [round(v, _DIGITS) for v in (x0, y0, x1 - x0, y1 - y0)],
        "area": round(found.area, _DIGITS),
    }
    if found.segmentation is not None and found.segmentation.counts:
        entry["segmentation"] = {"size": list(size), "counts": found.segmentation.counts.decode("ascii")}
    elif found.segmentation is not None:
        polygons = [np.frombuffer(polygon).round(_DIGITS).tolist() for polygon in found.segmentation.polygons]
        entry["segmentation"] = polygons
    return entry
