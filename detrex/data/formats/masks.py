"""PNG masks of instances, as in Pascal VOC and CVAT's "Segmentation mask"."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detrex.data.errors import DataError
from detrex.data.formats.collected import (
    Collected,
    images_by_stem,
    read_lines,
    visible_files,
)
from detrex.data.formats.shapes import rle_of
from detrex.data.image_io import read_label_map

VOC_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
_BACKGROUND, _VOID = "background", 255


def read(path: Path, found: Collected) -> None:
    """Reads a data set with the folders ``SegmentationObject`` and ``SegmentationClass``.

    The class of an object is that of most of its pixels. Classes and their colours come from
    ``labelmap.txt``; without it, pixels are the numbers of the classes of Pascal VOC.

    Args:
        path: the folder ``SegmentationObject``, or a list such as ``ImageSets/Segmentation/train.txt``.
    """
    root = _root(path)
    colors = label_map(root / "labelmap.txt")
    found.names = VOC_NAMES if colors is None else [name for name in colors if name != _BACKGROUND]
    by_stem = images_by_stem(found.folder)
    chosen = [line.split()[0] for line in read_lines(path)] if path.is_file() else None
    for file in visible_files(root / "SegmentationObject", "*.png"):
        if chosen is not None and file.stem not in chosen:
            continue
        if file.stem not in by_stem:
            found.on_error(DataError(f"{file}: its image is not in {found.folder}.", "image-missing"))
            continue
        try:
            objects = _numbers(read_label_map(file))
            classes = read_label_map(root / "SegmentationClass" / file.name, objects.shape)
        except DataError as error:
            found.on_error(error)
            continue
        image_id = found.add_image(by_stem[file.stem], objects.shape)
        for number in np.unique(objects):
            if number not in (0, _VOID):
                name = _class_of(classes[objects == number], colors)
                if name is None:
                    found.error(file, f"most pixels of object {number} have a value that is no class.")
                elif name != _BACKGROUND:
                    found.add_object(image_id, name, rle=rle_of(objects == number))


def image_folder(path: Path) -> Path:
    """The folder of the images."""
    return _root(path) / "JPEGImages"


def _root(path: Path) -> Path:
    return path.parent if path.is_dir() else path.absolute().parents[2]


def label_map(path: Path) -> dict[str, tuple[int, ...]] | None:
    """The colour of each class in CVAT's ``labelmap.txt`` (``name:r,g,b::``); None without such a file."""
    if not path.is_file():
        return None
    rows = [line.split(":") for line in read_lines(path) if ":" in line]
    try:
        return {
            row[0]: tuple(int(part) for part in row[1].split(","))
            for row in rows
            if not row[0].startswith("#")
        }
    except ValueError as error:
        raise DataError(f"{path} is no list of names and colours, name:r,g,b::parts: {error}") from error


def _numbers(pixels: np.ndarray) -> np.ndarray:
    """Pixels as (H, W) integers; colours become numbers."""
    return pixels if pixels.ndim == 2 else pixels[..., :3].astype(np.int64) @ [1, 256, 65536]


def _class_of(pixels: np.ndarray, colors: dict[str, tuple[int, ...]] | None) -> str | None:
    values, counts = np.unique(pixels.reshape(len(pixels), -1)[:, :3], axis=0, return_counts=True)
    most = tuple(int(part) for part in values[counts.argmax()])
    if len(most) == 1:
        names = [_BACKGROUND, *(VOC_NAMES if colors is None else (n for n in colors if n != _BACKGROUND))]
        return names[most[0]] if most[0] < len(names) else None
    return next((name for name, color in (colors or {}).items() if color == most), None)
