"""Checks the PNGs of semantic and panoptic data."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from detrex.data.census import count_objects
from detrex.data.check.annotations import PanopticChecker, SplitFacts
from detrex.data.check.findings import Example, Findings, join_first
from detrex.data.check.pixels import in_threads
from detrex.data.coco.panoptic import PanopticEntry, read_segment_ids
from detrex.data.errors import DataError
from detrex.data.image_io import image_facts, read_label_map
from detrex.data.semantic_folder import label_pairs
from detrex.structures import Categories

_VOID_CROPS = 0.25  # a warning if this share of crops has no labelled pixel
_CROPS = 4  # crops along each side of the grid


def find_label_maps(
    name: str, images: Path, segments: Path, suffixes: tuple[str, str], findings: Findings
) -> dict[str, Path]:
    """The label map of each image that has one; images without one become findings.

    Args:
        name: of the split.
        images, segments: folders.
        suffixes: endings of the names of images and label maps, see :class:`detrex.data.SemanticFolder`.
        findings: to which faults are added.
    """
    pairs = label_pairs(images, segments, *suffixes)
    for image, label in pairs.items():
        if not label.is_file():
            findings.add("labels-missing", name, Example(f"{image} (expected: {label})", str(images / image)))
    return {image: label for image, label in pairs.items() if label.is_file()}


class LabelMapChecker:
    """Lists the faults of label maps.

    Args:
        name: of the split.
        categories: the classes, whose ids are values of pixels.
        images: folder of the images.
        labels: the label map of each image.
        ignored: values of unlabelled pixels.
        crop: side of the crops in training in pixels.
        findings: to which faults are added.
    """

    def __init__(
        self,
        name: str,
        categories: Categories,
        images: Path,
        labels: dict[str, Path],
        ignored: Sequence[int],
        crop: int,
        findings: Findings,
    ):
        self.name, self.categories, self.images, self.labels = name, categories, images, labels
        self.ignored, self.crop, self.findings = list(ignored), crop, findings
        self._files: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._pixels: Counter[int] = Counter()
        self._owners, self._classes, self._areas = array("q"), array("q"), array("q")
        self._void_crops = self._crops = 0

    def check(self, images: Iterable[str]) -> None:
        """Reads the label maps of images."""
        for image, label_map in in_threads(self._read, images):
            if isinstance(label_map, DataError):
                self.findings.add(
                    "labels-broken", self.name, Example(str(label_map), str(self.images / image))
                )
            elif label_map.ndim != 2:
                channels = label_map.shape[2]
                self._note("labels-broken", image, f"{channels} channels; a label map has one, or a palette")
            else:
                self._check(image, label_map)

    def conclude(self) -> SplitFacts:
        """Adds findings of all label maps together."""
        absent = [
            name
            for category_id, name in zip(self.categories.ids, self.categories.names, strict=True)
            if category_id not in self._pixels and category_id not in self.ignored
        ]
        if absent and self._files:
            self.findings.add("labels-absent", self.name, Example(join_first(absent)), len(absent))
        if self._crops and self._void_crops > _VOID_CROPS * self._crops:
            share = f"{self._void_crops / self._crops:.0%} of crops of {self.crop} x {self.crop} pixels"
            self.findings.add("labels-void-crops", self.name, Example(share), self._void_crops)
        if not self._owners:
            text = "no label map has a labelled pixel of a class"
            self.findings.add("nothing-to-learn", self.name, Example(text))
        owner, classes = np.asarray(self._owners, np.int64), np.asarray(self._classes, np.int64)
        facts = SplitFacts(self.name, self.categories, self._files, list(self._files), has_masks=True)
        facts.sizes = np.array(self._sizes, np.int32).reshape(-1, 2)
        facts.objects = np.bincount(owner, minlength=len(self._files))
        if self._files:
            crowd, areas = np.zeros(len(owner), bool), np.asarray(self._areas, np.int64)
            count = len(self._files), len(self.categories)
            facts.counts = count_objects(*count, owner, classes, crowd, areas, {})
        return facts

    def _read(self, image: str) -> np.ndarray | DataError:
        try:
            return read_label_map(self.labels[image])
        except DataError as error:
            return error

    def _check(self, image: str, label_map: np.ndarray) -> None:
        size = self._check_size(image, label_map.shape)
        values, counts = np.unique(label_map, return_counts=True)
        unknown = np.setdiff1d(values, [*self.categories.ids, *self.ignored])
        if len(unknown):
            self._note("labels-unknown", image, f"the values {unknown[:10].tolist()}")
        if np.isin(values, self.ignored).all():
            self._note("labels-void", image, f"all pixels are {values.tolist()}")
        else:
            void, total = _void_crops(np.isin(label_map, self.ignored), self.crop)
            self._void_crops, self._crops = self._void_crops + void, self._crops + total
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._pixels[value] += count
            if value in self.categories.index_of and value not in self.ignored:
                self._owners.append(len(self._files))
                self._classes.append(self.categories.index_of[value])
                self._areas.append(count)
        self._files.append(image)
        self._sizes.append(size)

    def _check_size(self, image: str, size: tuple[int, ...]) -> tuple[int, int]:
        """The (height, width) of an image, or of its label map if the image cannot be read."""
        try:
            facts = image_facts(self.images / image)
        except DataError:
            return size[0], size[1]  # reported by the check of pictures
        if size not in (facts.size, facts.upright):
            height, width = facts.size
            text = f"{size[0]} x {size[1]} pixels (height x width), the image has {height} x {width}"
            self._note("labels-size", image, text)
            return facts.size
        return size[0], size[1]

    def _note(self, kind: str, image: str, text: str) -> None:
        example = Example(f"{self.labels[image]}: {text}", str(self.images / image))
        self.findings.add(kind, self.name, example)


def _void_crops(void: np.ndarray, crop: int) -> tuple[int, int]:
    """Among evenly spread crops, the number without a labelled pixel, and the number of all."""
    height, width = void.shape
    tops = np.unique(np.linspace(0, max(height - crop, 0), _CROPS).astype(int))
    lefts = np.unique(np.linspace(0, max(width - crop, 0), _CROPS).astype(int))
    crops = [void[top : top + crop, left : left + crop] for top in tops for left in lefts]
    return sum(bool(piece.all()) for piece in crops), len(crops)


def check_segments_of(
    checker: PanopticChecker, facts: SplitFacts, segments: Path, chosen: Iterable[int], findings: Findings
) -> None:
    """Compares panoptic PNGs with their annotations.

    Args:
        checker: which has read the annotations.
        facts: of the split.
        segments: folder of the PNGs.
        chosen: indices of the images to look at.
        findings: to which faults are added.
    """

    def read(index: int) -> tuple[PanopticEntry, np.ndarray | DataError]:
        entry = msgspec.msgpack.decode(checker.entries[index], type=PanopticEntry)
        try:
            return entry, read_segment_ids(segments / entry.file_name, tuple(facts.sizes[index].tolist()))
        except DataError as error:
            return entry, error

    annotated = (index for index in chosen if index in checker.entries)
    for index, (entry, ids) in in_threads(read, annotated):
        where = str(segments / entry.file_name)
        if isinstance(ids, DataError):
            kind = "segments-broken" if Path(where).is_file() else "segments-missing"
            findings.add(kind, facts.name, Example(str(ids)))
            continue
        values, counts = np.unique(ids, return_counts=True)
        painted = dict(zip(values.tolist(), counts.tolist(), strict=True))
        only_painted = sorted(painted.keys() - {0} - {s.segment_id for s in entry.segments})[:5]
        only_listed = sorted({s.segment_id for s in entry.segments} - painted.keys())[:5]
        if only_painted or only_listed:
            text = f"{entry.file_name}: {only_painted} only in the PNG, {only_listed} only in the annotation"
            findings.add("segments-disagree", facts.name, Example(text, where))
        areas = msgspec.msgpack.decode(checker.areas[index], type=dict[int, int])
        wrong = [i for i, area in areas.items() if i in painted and area != painted[i]]
        if wrong:
            findings.add("segment-area", facts.name, Example(f"{entry.file_name}: segment {wrong[0]}", where))
        if list(painted) == [0]:
            findings.add("labels-void", facts.name, Example(entry.file_name, where))
