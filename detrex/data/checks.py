"""Checks the pixels of a data set before training, in a part of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from detrex.data.coco_panoptic import CocoPanoptic
from detrex.data.errors import DataError
from detrex.data.image_dataset import ImageDataset
from detrex.data.image_io import highest_value, image_facts
from detrex.data.semantic_folder import SemanticFolder

LOOKED_AT = 200
"""Number of evenly spread images of a data set that are checked."""

_TWELVE_BITS = 4095
_CHUNK = 1 << 20
_DECODED = 20  # panoptic PNGs, which have to be decoded


def spread(length: int, count: int) -> list[int]:
    """``count`` evenly spread numbers below ``length``; all of them if there are fewer."""
    count = min(count, length)
    return [i * length // count for i in range(count)]


def check_pixels(dataset: ImageDataset) -> list[str]:
    """Checks the headers of up to :data:`LOOKED_AT` images, and some label maps.

    Returns:
        Warnings for users of the data set.

    Raises:
        DataError: an image is missing, broken, or of a different size than its annotations say; a panoptic
            PNG contradicts its annotation; a label map has values that are not classes.
    """
    indices = spread(len(dataset), LOOKED_AT)
    warnings = _check_images(dataset, indices)
    if isinstance(dataset, SemanticFolder):
        warnings += dataset.check_labels(indices)
    if isinstance(dataset, CocoPanoptic):
        for index in spread(len(dataset), _DECODED):
            dataset.targets(index)
    return warnings


def require_objects(dataset: ImageDataset) -> None:
    """Raises :class:`DataError` with the reason if a data set has nothing to learn from."""
    if (counts := dataset.counts()) is not None and not counts.objects:
        raise DataError(
            f"There is nothing to learn from in the data set of images in {dataset.images}: "
            f"{counts.nothing_because()}."
        )


def common_pictures(first: ImageDataset, second: ImageDataset) -> str | None:
    """A warning if pictures of one data set are also in the other, byte by byte; None if not.

    Files of equal size are compared, for up to :data:`LOOKED_AT` images of the first data set.
    """
    sizes = _by_size(second)
    shared = []
    for index in spread(len(first), LOOKED_AT):
        path = first.images / first.entry(index).file_name
        candidates = sizes.get(path.stat().st_size, [])[:LOOKED_AT] if path.is_file() else []
        twin = next((other for other in candidates if file_digest(other) == file_digest(path)), None)
        if twin is not None:
            shared.append(f"{path.name} is {twin.name}")
    if not shared:
        return None
    looked_at = min(len(first), LOOKED_AT)
    more = ", ..." if len(shared) > 3 else ""
    return (
        f"{len(shared)} of {looked_at} pictures in {first.images} are also in {second.images} "
        f"({', '.join(shared[:3])}{more}): what is trained on says nothing about other pictures"
    )


def _check_images(dataset: ImageDataset, indices: Sequence[int]) -> list[str]:
    turned, deep, many = [], [], []
    for index in indices:
        entry = dataset.entry(index)
        path = dataset.images / entry.file_name
        facts = image_facts(path, entry.image_id)
        size = dataset.image_size(index)
        possible = {"auto": {facts.size, facts.upright}, "stored": {facts.size}, "shown": {facts.upright}}
        if size not in possible[dataset.orientation]:
            raise DataError(
                f"Image {path} (image id {entry.image_id}) has {facts.size[0]} x {facts.size[1]} pixels "
                "(height x "
                f"width), but its annotations are for {size[0]} x {size[1]}. Correct 'height' and 'width' "
                "in the "
                "annotation file, put back the image that was annotated, or set orientation for the data set."
            )
        if facts.turned:
            turned.append(f"{entry.file_name}, {'as stored' if size == facts.size else 'turned'}")
        if facts.deep and dataset.value_range is None and highest_value(path) <= _TWELVE_BITS:
            deep.append(entry.file_name)
        if facts.frames > 1:
            many.append(entry.file_name)
    warnings = (
        (
            turned,
            "say by EXIF that they are to be turned; annotations are taken as drawn on the picture of the "
            "listed "
            "size. If a tool lists one size and draws on the other picture, set orientation=stored or "
            "shown for "
            "the data set and the evaluators",
        ),
        (
            deep,
            f"have 16 bits a channel, but values up to {_TWELVE_BITS} alone, which leaves "
            f"{_TWELVE_BITS // 257 + 1} "
            "grey levels: set value_range=[0,4095] for the data set",
        ),
        (many, "hold several pictures (an animation or pages), of which the first one is used"),
    )
    return [
        f"{len(names)} of {len(indices)} images looked at {text} ({_first(names)})"
        for names, text in warnings
        if names
    ]


def _by_size(dataset: ImageDataset) -> dict[int, list[Path]]:
    """Files of a data set by their size in bytes."""
    sizes: dict[int, list[Path]] = {}
    for _, name in dataset.image_names():
        path = dataset.images / name
        if path.is_file():
            sizes.setdefault(path.stat().st_size, []).append(path)
    return sizes


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
