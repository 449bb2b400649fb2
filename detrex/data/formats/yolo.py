"""Ultralytics' YOLO format: a text file per image, with a class index and a box or polygon in each line."""

from __future__ import annotations

import math
from pathlib import Path

from detrex.data.errors import DataError
from detrex.data.formats.collected import (
    Collected,
    image_size,
    images_by_stem,
    read_lines,
    visible_files,
)
from detrex.data.formats.yolo_layout import NAME_FILES, class_names, label_folder, labels_beside


def read(path: Path, found: Collected) -> None:
    """Reads a split.

    Args:
        path: folder of label files (``labels/train``), of images (``images/train``) or of both; or a text
            file that lists images.
    """
    names = found.names = class_names(path)
    for name, label in _pairs(path, found).items():
        try:
            size = image_size(found.folder / name)
        except DataError as error:
            found.on_error(error)
            continue
        image_id = found.add_image(name, size)
        lines = (
            label.read_text(encoding="utf-8-sig", errors="replace").splitlines() if label.is_file() else []
        )
        for number, line in enumerate(lines, start=1):
            if line.strip():
                _read_line(line, size, names, f"{label}, line {number}", image_id, found)


def _pairs(path: Path, found: Collected) -> dict[str, Path]:
    """The label file for each image name; it need not exist."""
    if not path.is_dir():
        names = [line.strip().removeprefix("./") for line in read_lines(path)]
        places = {name: path.parent / name for name in names if name}
        return {name: labels_beside(p.parent) / f"{p.stem}.txt" for name, p in places.items()}
    labels = label_folder(path)
    by_stem = images_by_stem(found.folder)
    for label in visible_files(labels, "**/*.txt"):
        stem = label.relative_to(labels).with_suffix("").as_posix()
        if stem not in by_stem and label.name not in NAME_FILES:
            found.error(label, f"there is no image for these labels in {found.folder}.")
    return {name: labels / f"{stem}.txt" for stem, name in by_stem.items()}


def _read_line(
    line: str, size: tuple[int, int], names: list[str], where: str, image_id: int, found: Collected
) -> None:
    try:
        index, *numbers = map(float, line.split())
    except ValueError:
        return found.error(where, f"{line[:80]!r} is not a class index and numbers.")
    if not (index.is_integer() and 0 <= index < len(names)):
        return found.error(where, f"class {index:g}; the list of names has 0 to {len(names) - 1}.")
    if (
        not all(map(math.isfinite, numbers))
        or len(numbers) not in (4, 5)
        and (len(numbers) < 6 or len(numbers) % 2)
    ):
        return found.error(
            where, f"{len(numbers)} numbers; expected are x, y, width, height or x, y, x, y, ..."
        )
    if max(numbers, default=0) > 2:
        return found.error(
            where, f"the coordinate {max(numbers):g}; expected are shares of the image, 0 to 1."
        )
    height, width = size
    if len(numbers) in (4, 5):  # a fifth number is the confidence of a prediction
        x, y, w, h = numbers[:4]
        box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        return found.add_object(image_id, names[int(index)], box)
    scaled = [number * (height if k % 2 else width) for k, number in enumerate(numbers)]
    return found.add_object(image_id, names[int(index)], polygons=[scaled])
