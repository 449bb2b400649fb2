"""Checks every picture of a split: whether it decodes, fits its annotations, and has duplicates."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from detrex.data.check.annotations import SplitFacts
from detrex.data.check.findings import Example, Findings
from detrex.data.checks import file_digest
from detrex.data.errors import DataError
from detrex.data.file_names import near_names
from detrex.data.image_io import (
    IMAGE_SUFFIXES,
    ImageFacts,
    Orientation,
    highest_value,
    image_facts,
    small_picture,
)

_TWELVE_BITS = 4095
_ALIKE = 3  # fingerprints (64 bits) of nearly identical pictures differ in at most so many bits
_BANDS = 4  # of 16 bits each; two fingerprints that differ in 3 bits share at least one band
_FLAT = 12  # least number of ones and of zeros in a fingerprint: pictures without structure are all alike
_CROWDED = 64  # largest number of pictures that are compared because they share a band
_AHEAD = 64  # pictures that are checked at a time

Item = TypeVar("Item")
Result = TypeVar("Result")


class Look(NamedTuple):
    """Facts about a decoded picture.

    Attributes:
        facts: from its header.
        digest: of the file's bytes.
        fingerprint: 64 bits that are similar for pictures that look similar.
        is_blank: whether all pixels have one colour.
        deep_highest: highest value in a file of 16 bits a channel, else 0.
        kind: the file's type by its content, such as ``"JPEG"``.
    """

    facts: ImageFacts
    digest: bytes
    fingerprint: int
    is_blank: bool
    deep_highest: int
    kind: str


class Pictures(NamedTuple):
    """Facts about a split's pictures, for comparisons.

    Attributes:
        indices: (K,) int32, indices of the images.
        digests: (K,) digests of their files, 16 bytes each.
        fingerprints: (K,) uint64.
    """

    indices: np.ndarray
    digests: np.ndarray
    fingerprints: np.ndarray


def look_at(path: Path) -> Look:
    """Decodes a picture.

    Raises:
        DataError: the picture is missing or broken.
    """
    facts = image_facts(path)
    small = small_picture(path, (8, 9))
    bits = np.packbits(small.pixels[:, 1:] > small.pixels[:, :-1])
    deep = highest_value(path) if facts.deep else 0
    fingerprint = int.from_bytes(bits.tobytes(), "big")
    return Look(facts, bytes.fromhex(file_digest(path))[:16], fingerprint, small.is_blank, deep, small.kind)


def check_pictures(
    facts: SplitFacts,
    folder: Path,
    chosen: Iterable[int],
    findings: Findings,
    orientation: Orientation = "auto",
    has_value_range: bool = False,
) -> Pictures:
    """Checks pictures of a split.

    Args:
        facts: of the split.
        folder: of the images.
        chosen: indices of the images to check.
        findings: to which faults are added.
        orientation: of the data set, see :data:`detrex.data.image_io.Orientation`.
        has_value_range: whether the data set defines the range of 16-bit values.
    """
    indices, digests, fingerprints = [], bytearray(), []

    def look(index: int) -> Look | DataError:
        try:
            return look_at(folder / facts.files[index])
        except DataError as error:
            return error

    for index, seen in in_threads(look, chosen):
        path = folder / facts.files[index]
        if isinstance(seen, DataError):
            is_there = path.is_file()
            (facts.broken if is_there else facts.missing).append(index)
            kind = "image-broken" if is_there else "image-missing"
            findings.add(kind, facts.name, Example(str(seen)))
            continue
        _check(seen, path, index, facts, findings, orientation, has_value_range)
        indices.append(index)
        digests += seen.digest
        fingerprints.append(seen.fingerprint)
    return Pictures(
        np.array(indices, np.int32),
        np.frombuffer(bytes(digests), "V16"),
        np.array(fingerprints, np.uint64),
    )


def _check(
    seen: Look,
    path: Path,
    index: int,
    facts: SplitFacts,
    findings: Findings,
    orientation: Orientation,
    has_value_range: bool,
) -> None:
    def add(kind: str, text: str) -> None:
        findings.add(kind, facts.name, Example(f"{facts.files[index]}: {text}", str(path)))

    size = tuple(facts.sizes[index].tolist())
    pictures = {"stored": {seen.facts.size}, "shown": {seen.facts.upright}}
    possible = pictures.get(orientation, {seen.facts.size, seen.facts.upright})
    if size not in possible:
        height, width = seen.facts.size
        add("image-size", f"{height} x {width} pixels (height x width), listed are {size[0]} x {size[1]}")
    elif seen.facts.turned:
        add(
            "image-turned",
            "annotations are taken as drawn on the picture "
            + ("as stored" if size == seen.facts.size else "as shown"),
        )
    if seen.facts.deep and not has_value_range and seen.deep_highest <= _TWELVE_BITS:
        add("image-deep", f"its highest value is {seen.deep_highest} of 65535")
    if seen.facts.frames > 1:
        add("image-frames", f"{seen.facts.frames} pictures")
    if seen.is_blank:
        add("image-blank", "all pixels have one colour")
    if (kind := Image.registered_extensions().get(path.suffix.lower())) not in (None, seen.kind):
        if {kind, seen.kind} != {"JPEG", "MPO"}:
            add("image-type", f"it is {seen.kind}")


def check_unlisted(facts: SplitFacts, folder: Path, findings: Findings) -> None:
    """Finds images that are not listed but lie in the folders of listed ones."""
    listed = set(facts.files)
    folders = {os.path.dirname(name) for name in facts.files}
    unlisted = []
    for part in sorted(folders):
        if (folder / part).is_dir():
            for entry in os.scandir(folder / part):
                name = f"{part}/{entry.name}" if part else entry.name
                if name not in listed and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                    unlisted.append(name)
    for name in sorted(unlisted):
        findings.add("image-unlisted", facts.name, Example(name, str(folder / name)))


def check_names(facts: SplitFacts, folder: Path, findings: Findings) -> None:
    """Reports which rewriting of names would find missing images."""
    if facts.missing and folder.is_dir():
        rewriting, found = near_names(folder, [facts.files[index] for index in facts.missing])
        if found:
            name, file = next(iter(found.items()))
            text = f"file_names={rewriting} would find {len(found)} of them ({name} as {file})"
            findings.add("image-missing", facts.name, Example(text), 0)


def check_doubles(facts: SplitFacts, folder: Path, pictures: Pictures, findings: Findings) -> None:
    """Finds pictures of one split that are identical, or nearly so."""
    names = facts.files
    _, first, inverse = np.unique(pictures.digests, return_index=True, return_inverse=True)
    for k in np.flatnonzero(first[inverse] != np.arange(len(inverse))).tolist():
        earlier, later = (names[pictures.indices[i]] for i in (first[inverse[k]], k))
        if earlier != later:
            findings.add("image-twice", facts.name, Example(f"{later} is {earlier}", str(folder / later)))
    different = np.unique(first)
    prints = pictures.fingerprints[different]
    for i, k in near(prints, prints):
        if i < k:
            earlier, later = (names[pictures.indices[different[j]]] for j in (i, k))
            findings.add("image-alike", facts.name, Example(f"{later} and {earlier}", str(folder / later)))


def check_leaks(
    first: tuple[SplitFacts, Path, Pictures], second: tuple[SplitFacts, Path, Pictures], findings: Findings
) -> None:
    """Finds pictures that two splits share, identically or nearly so."""
    (facts, folder, pictures), (others, _, known) = first, second
    split = f"{others.name} and {facts.name}"
    _, here, there = np.intersect1d(
        pictures.digests.view("S16"), known.digests.view("S16"), return_indices=True
    )
    for i, k in zip(here, there, strict=True):
        name, other = facts.files[pictures.indices[i]], others.files[known.indices[k]]
        findings.add("leak", split, Example(f"{name} is {other}", str(folder / name)))
    same = set(here.tolist())
    alike = {i: k for i, k in near(pictures.fingerprints, known.fingerprints) if i not in same}
    for i, k in alike.items():
        name, other = facts.files[pictures.indices[i]], others.files[known.indices[k]]
        findings.add("leak-alike", split, Example(f"{name} and {other}", str(folder / name)))


def near(prints: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of fingerprints, one from each list, that differ in at most :data:`_ALIKE` bits.

    Args:
        prints: (N,) uint64.
        others: (M,) uint64.
    """
    ones = np.array([int(p).bit_count() for p in others.tolist()])
    useful = np.flatnonzero((ones >= _FLAT) & (ones <= 64 - _FLAT))
    found = set()
    for band in range(_BANDS):
        keys, shift = (others[useful] >> np.uint64(16 * band)) & np.uint64(0xFFFF), np.uint64(16 * band)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        wanted = (prints >> shift) & np.uint64(0xFFFF)
        starts = np.searchsorted(ordered, wanted)
        ends = np.searchsorted(ordered, wanted, side="right")
        for i in np.flatnonzero(ends > starts).tolist():
            candidates = useful[order[starts[i] : min(ends[i], starts[i] + _CROWDED)]]
            for k in candidates.tolist():
                if (int(prints[i]) ^ int(others[k])).bit_count() <= _ALIKE and (i, k) not in found:
                    found.add((i, k))
                    yield i, k


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Yields items with the results of ``work``, in order; threads compute a bounded number at a time."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= _AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
