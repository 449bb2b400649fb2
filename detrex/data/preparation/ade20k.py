"""ADE20K's instances and panoptic segments, from ``annotations_instance`` and ``annotations``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from detrex.data.categories import category_file, read_categories
from detrex.data.errors import DataError
from detrex.data.image_io import read_label_map
from detrex.data.preparation.writing import AnnotationWriter

_IDS = 1000  # segment id = 1000 * category + number of the object, which is 0 for stuff
_SPLITS = {"training": "train", "validation": "val"}


def prepare_ade20k(
    root: Path, kind: Literal["instance", "panoptic"], splits: Sequence[str] = ("training", "validation")
) -> Iterator[str]:
    """Writes ``ade20k_KIND_{train,val}.json`` and, for panoptic segments, PNGs in a folder of that name.

    Ids of categories are those of the 150 classes of scene parsing. Things are the 100 classes of the
    instance challenge; in panoptic segments, they lie over stuff.

    Args:
        root: folder ADEChallengeData2016, with ``annotations_instance`` unpacked in it.
        kind: instances, or segments of things and stuff.
        splits: folders in ``annotations_instance``.

    Yields:
        What was written, in words.

    Raises:
        DataError: there is no such data.
    """
    panoptic = read_categories(category_file("ade20k_panoptic"))
    categories = panoptic if kind == "panoptic" else read_categories(category_file("ade20k_instance"))
    numbers = thing_ids(root)
    for split in splits:
        files = sorted((root / "annotations_instance" / split).glob("*.png"))
        if not files:
            raise DataError(
                f"{root / 'annotations_instance' / split} has no PNGs: unpack annotations_instance.tar "
                f"of ADE20K's "
                "instance segmentation challenge there"
            )
        name = f"ade20k_{kind}_{_SPLITS.get(split, split)}"
        writer = AnnotationWriter(categories, root / name if kind == "panoptic" else None)
        for number, file in enumerate(files, start=1):
            ids, segments = _read(file, numbers)
            if kind == "panoptic":
                ids = _with_stuff(ids, read_label_map(root / "annotations" / split / file.name, ids.shape))
                stuff = {i: (i, False) for i in np.unique(ids).tolist() if 0 < i < _IDS}
                things = {i for i, is_thing in zip(panoptic.ids, panoptic.is_thing, strict=True) if is_thing}
                segments |= {i: s for i, s in stuff.items() if i not in things}
            writer.add(number, f"{file.stem}.jpg", ids, segments)
        yield writer.write(root / f"{name}.json")


def thing_ids(root: Path) -> list[int]:
    """The category id of each class of the instance challenge, whose 100 classes are numbered from 1 on.

    If ``categoryMapping.txt`` of the challenge is in ``root``, the ids come from it: it has a line for each
    class with its number, category id and name. Otherwise, they are the things in the order of their ids.
    """
    path = root / "categoryMapping.txt"
    if not path.is_file():
        return [0, *read_categories(category_file("ade20k_instance")).ids]
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = {
        int(row[0]): int(row[1]) for row in rows if len(row) > 1 and row[0].isdecimal() and row[1].isdecimal()
    }
    if sorted(pairs) != list(range(1, len(pairs) + 1)):
        raise DataError(f"{path} is no list of numbers, category ids and names")
    return [0, *(pairs[k] for k in range(1, len(pairs) + 1))]


def _read(file: Path, numbers: Sequence[int]) -> tuple[np.ndarray, dict[int, tuple[int, bool]]]:
    """Segment ids of the objects; red is the number of the class, green the number of the object."""
    pixels = read_label_map(file).astype(np.int64)
    if pixels.ndim != 3 or pixels[..., 0].max() >= len(numbers):
        raise DataError(f"{file} is no PNG of instances, whose red is a class from 1 to {len(numbers) - 1}")
    labels = np.array(numbers)[pixels[..., 0]]
    ids = np.where(labels > 0, labels * _IDS + pixels[..., 1], 0)
    return ids, {i: (i // _IDS, False) for i in np.unique(ids).tolist() if i}


def _with_stuff(ids: np.ndarray, semantic: np.ndarray) -> np.ndarray:
    return np.where(ids > 0, ids, semantic.astype(np.int64))
