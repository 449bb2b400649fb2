"""Cityscapes' instances and panoptic segments, from ``*_gtFine_instanceIds.png``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from detrex.data.categories import category_file, read_categories
from detrex.data.errors import DataError
from detrex.data.image_io import read_label_map
from detrex.data.preparation.writing import AnnotationWriter

_IDS = 1000  # id of an instance = 1000 * label + number; the id of a group is the label alone
_SUFFIX = "_gtFine_instanceIds.png"


def prepare_cityscapes(
    root: Path, kind: Literal["instance", "panoptic"], splits: Sequence[str] = ("train", "val")
) -> Iterator[str]:
    """Writes ``annotations/KIND_SPLIT.json`` and, for segments, PNGs in ``annotations/panoptic_SPLIT``.

    Ids of categories are Cityscapes' label ids. Groups of things are crowds.

    Args:
        root: folder with ``gtFine`` and ``leftImg8bit``.
        kind: instances of the eight classes that have them, or segments of all nineteen.
        splits: folders in ``gtFine``.

    Yields:
        What was written, in words.

    Raises:
        DataError: there is no such data.
    """
    name = "cityscapes_instance" if kind == "instance" else "cityscapes_semantic"
    categories = read_categories(category_file(name))
    things = set(read_categories(category_file("cityscapes_instance")).ids)
    for split in splits:
        files = sorted((root / "gtFine" / split).rglob(f"*{_SUFFIX}"))
        if not files:
            raise DataError(
                f"{root / 'gtFine' / split} has no *{_SUFFIX}: unpack gtFine_trainvaltest.zip of "
                f"Cityscapes there"
            )
        pngs = root / "annotations" / f"panoptic_{split}" if kind == "panoptic" else None
        writer = AnnotationWriter(categories, pngs)
        for file in files:
            ids = read_label_map(file).astype(np.int64)
            stem = file.relative_to(root / "gtFine" / split).as_posix().removesuffix(_SUFFIX)
            writer.add(stem, f"{stem}_leftImg8bit.png", ids, _segments(ids, things))
        yield writer.write(root / "annotations" / f"{kind}_{split}.json")


def _segments(ids: np.ndarray, things: set[int]) -> dict[int, tuple[int, bool]]:
    found = {}
    for value in np.unique(ids).tolist():
        label = value if value < _IDS else value // _IDS
        found[value] = label, value < _IDS and label in things
    return found
