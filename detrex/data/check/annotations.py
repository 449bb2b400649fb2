"""Checks every entry of an annotation file, and continues after each fault."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detrex.data.census import ObjectCounts
from detrex.data.check.findings import Example, Findings, join_first
from detrex.data.coco.keys import entry_name
from detrex.data.coco.object_reader import MANY, CocoObject, ObjectReader, View
from detrex.data.coco.panoptic import PanopticEntry, PanopticReader
from detrex.data.coco.reader import CocoReader, ReadOptions, Tally
from detrex.data.errors import DataError
from detrex.structures import Categories

_TINY = 2.0  # pixels
_HUGE = 0.999  # share of the image
_OUTSIDE = 1.0  # pixels by which a polygon may extend beyond its image
_IMBALANCE = 200  # a warning if a class has this many times the objects of another
_ENOUGH = 50  # images that statements about most of them need


@dataclass
class SplitFacts:
    """Facts read from a split, for checks across its files and for advice.

    Attributes:
        name: of the split.
        categories: its classes; None if they cannot be read.
        files: paths of the images, relative to their folder.
        ids: of the images.
        sizes: (M, 2) int32, listed height and width in pixels.
        objects: (M,) int64, number of objects in each image.
        counts: of the objects.
        sides: (N, 2) float32, width and height of the objects' boxes in pixels.
        sides_of: (N,) int32, index of the image of each box.
        has_masks: whether objects have masks.
        missing, broken: indices of images that do not exist, or cannot be decoded.
    """

    name: str
    categories: Categories | None = None
    files: list[str] = field(default_factory=list)
    ids: list[int | str] = field(default_factory=list)
    sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    objects: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: ObjectCounts | None = None
    sides: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    sides_of: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    has_masks: bool = False
    missing: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)


class ListingReader(CocoReader):
    """Mixed into a reader of COCO files: lists faults, and leaves out entries that have them.

    Args:
        where: the file or folder.
        options: with which the data set would read it.
        split: name of the split.
        findings: to which faults are added.

    Attributes:
        findings: the faults.
        split: name of the split.
        folder: of the images, for pictures of findings.
    """

    entry: Mapping[str, Any]

    def __init__(self, where: Path, options: ReadOptions, split: str, findings: Findings):
        super().__init__(where, options)
        self.split, self.findings = split, findings
        self.folder = options.images or where.parent

    def add_image(self, image: Any) -> None:
        self.entry = image if isinstance(image, dict) else {}
        try:
            super().add_image(image)
        except DataError as error:
            kind = (
                "size-missing" if error.kind.startswith("image-") and "id" not in error.kind else error.kind
            )
            self.note(kind, str(error))

    def keep(self, annotation: Any) -> tuple[int, Any] | None:
        self.entry = annotation if isinstance(annotation, dict) else {}
        try:
            return self.keep_checked(annotation)
        except DataError as error:
            self.note(error.kind, str(error))
            return None

    def keep_checked(self, annotation: Any) -> tuple[int, Any] | None:
        """The index of the annotation's image, and what the reader keeps of the annotation.

        Raises:
            DataError: the annotation is wrong.
        """
        return super().keep(annotation)

    def tally(self, what: str, kind: str) -> Tally:
        return Tally(what, lambda: self.note(kind, entry_name(self.entry, "annotation")))

    def checked_categories(self, categories: Categories) -> Categories:
        unknown = {i: name for i, name in self.first_of_category.items() if i not in categories.index_of}
        if not unknown:
            return categories
        for category_id, name in unknown.items():
            count = self.objects_of_category.get(category_id, 1)
            example = Example(f"category id {category_id}: {name}", *self._example_of_category[category_id])
            self.findings.add("unknown-category", self.split, example, count)
        listed = [
            {"id": i, "name": name, "isthing": thing, "color": color}
            for i, name, thing, color in zip(
                categories.ids, categories.names, categories.is_thing, categories.colors, strict=True
            )
        ]
        listed += [{"id": i, "name": f"category id {i}, which is not listed"} for i in unknown]
        return Categories.from_coco(listed)

    def start(self) -> None:
        super().start()
        self.entry = {}
        self.objects_of_category: Counter[int] = Counter()
        self._example_of_category: dict[int, tuple[str, dict[str, Any]]] = {}

    def use_category(self, category_id: int, name: Callable[[], str]) -> None:
        super().use_category(category_id, name)
        if category_id not in self.objects_of_category:
            self._example_of_category[category_id] = self.picture(), dict(self.entry)
        self.objects_of_category[category_id] += 1

    def note(self, kind: str, text: str) -> None:
        """Notes a fault of the entry that is being read."""
        self.findings.add(kind, self.split, Example(text, self.picture(), dict(self.entry)))

    def picture(self) -> str:
        """The path of the picture of the entry that is being read; empty if there is none."""
        key = self.entry.get("image_id")
        place = self.places.get(key) if isinstance(key, int | str) else None
        name = self.entry.get("file_name") if place is None else self.names[place]
        return str(self.folder / name) if isinstance(name, str) else ""

    def facts(self, categories: Categories, counts: ObjectCounts) -> SplitFacts:
        """The facts read from the file."""
        for note in self.notes:
            self.findings.add("not-an-area", self.split, Example(note))
        sizes = np.asarray(self.sizes, np.int32).reshape(-1, 2)
        return SplitFacts(self.split, categories, self.names, list(self.places), sizes, counts=counts)


class InstanceChecker(ListingReader, ObjectReader):
    """Lists the faults of an instance file."""

    def start(self) -> None:
        super().start()
        self._ids = array("q")
        self._sides, self._owner = array("f"), array("i")
        self._digests_seen: set[int] = set()

    def keep_checked(self, annotation: Any) -> tuple[int, CocoObject] | None:
        kept = ObjectReader.keep(self, annotation)
        if isinstance(annotation, dict) and isinstance(annotation.get("id"), int | str):
            self._ids.append(hash(annotation["id"]))
        if kept is None:
            return None
        place, found = kept
        height, width = self.sizes[2 * place], self.sizes[2 * place + 1]
        x0, y0, x1, y1 = found.box
        if found.is_crowd:
            return kept
        self._sides.extend((x1 - x0, y1 - y0))
        self._owner.append(place)
        if min(x1 - x0, y1 - y0) < _TINY:
            self.note(
                "tiny-object", f"{entry_name(annotation, 'annotation')}: {x1 - x0:.3g} x {y1 - y0:.3g} pixels"
            )
        elif (x1 - x0) * (y1 - y0) >= _HUGE * height * width:
            self.note("huge-object", entry_name(annotation, "annotation"))
        if found.segmentation is not None and found.segmentation.polygons:
            self._check_reach(found.segmentation.polygons, (height, width))
        if self.digests[-1] in self._digests_seen:
            self.note("annotation-twice", entry_name(annotation, "annotation"))
        self._digests_seen.add(self.digests[-1])
        return kept

    def fail(self, view: View, kind: str, message: str) -> None:
        super().fail(view, kind, message)
        self.note(kind, message.removeprefix(f"{self.where}: "))

    def _check_reach(self, polygons: list[bytes], size: tuple[int, int]) -> None:
        for polygon in polygons:
            points = np.frombuffer(polygon).reshape(-1, 2)
            low, high = points.min(0), points.max(0)
            if min(low) < -_OUTSIDE or high[0] > size[1] + _OUTSIDE or high[1] > size[0] + _OUTSIDE:
                name = entry_name(self.entry, "annotation")
                reach = f"x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}"
                self.note("polygon-outside", f"{name}: {reach} in an image of {size[1]} x {size[0]}")
                return

    def conclude(self, header: Mapping[str, Any]) -> SplitFacts:
        """Adds findings of the file as a whole.

        Args:
            header: of the store that was filled.
        """
        split, findings = self.split, self.findings
        categories = Categories.from_dict(header["categories"])
        has_masks = self.masks.given > 0
        view = header["views"]["masks" if has_masks else "boxes"]
        counts = msgspec.convert(view["counts"], ObjectCounts)
        if not has_masks:
            findings.drop("segmentation-missing", split)
        total = counts.objects + counts.crowds
        if counts.crowds and not counts.objects:
            findings.add("all-crowds", split, Example(f"{counts.crowds} objects"), counts.crowds)
        elif counts.crowds > MANY * total:
            findings.add("many-crowds", split, Example(f"{counts.crowds} of {total} objects"), counts.crowds)
        if self.like_corners > MANY * total:
            example = Example(f"{self.like_corners} of {total} boxes would be inside as corners")
            findings.add("bbox-corners", split, example, self.like_corners)
        if self.is_per_cent(total):
            findings.add("per-cent", split, Example("no coordinate is above 100"), total)
        if twice := len(self._ids) - len(np.unique(np.asarray(self._ids))):
            findings.add("annotation-id-twice", split, Example(f"ids that were there before: {twice}"), twice)
        check_counts(findings, split, categories, counts, self.annotated)
        facts = self.facts(categories, counts)
        facts.sides_of = np.asarray(self._owner, np.int32)
        facts.sides = np.asarray(self._sides, np.float32).reshape(-1, 2)
        facts.objects = np.bincount(facts.sides_of, minlength=len(self.names))
        facts.has_masks = has_masks
        return facts


class PanopticChecker(ListingReader, PanopticReader):
    """Lists the faults of a panoptic file; arguments are those of :class:`ListingReader`.

    Attributes:
        entries: the annotation of each image, as MessagePack, by the image's index in the file.
        areas: the listed areas of segments in pixels, by the image's index in the file.
    """

    def start(self) -> None:
        super().start()
        self.entries: dict[int, bytes] = {}
        self.areas: dict[int, bytes] = {}

    def keep_checked(self, annotation: Any) -> tuple[int, PanopticEntry] | None:
        kept = PanopticReader.keep(self, annotation)
        if kept is None:
            return None
        place, entry = kept
        self.entries[place] = msgspec.msgpack.encode(entry)
        listed = [(s.get("id"), s.get("area")) for s in annotation["segments_info"]]
        areas = {i: a for i, a in listed if isinstance(i, int) and isinstance(a, int)}
        self.areas[place] = msgspec.msgpack.encode(areas)
        return kept

    def conclude(self, header: Mapping[str, Any]) -> SplitFacts:
        """Adds findings of the file as a whole; see :meth:`InstanceChecker.conclude`."""
        categories = Categories.from_dict(header["categories"])
        counts = msgspec.convert(header["counts"], ObjectCounts)
        if not self.tells_things:
            self.findings.add("isthing-missing", self.split, Example("isthing is missing in categories"))
        elif all(categories.is_thing) and len(categories) > 1:
            self.findings.add("no-stuff", self.split, Example(f"{len(categories)} classes"))
        check_counts(self.findings, self.split, categories, counts, self.annotated)
        facts = self.facts(categories, counts)
        facts.objects = np.array([0] * len(self.names))
        for place, packed in self.entries.items():
            segments = msgspec.msgpack.decode(packed, type=PanopticEntry).segments
            facts.objects[place] = sum(not segment.is_crowd for segment in segments)
        facts.has_masks = True
        return facts


def check_counts(
    findings: Findings, split: str, categories: Categories, counts: ObjectCounts, annotated: bool
) -> None:
    """Adds findings about numbers of objects.

    Args:
        findings: to which they are added.
        split: name of the split.
        categories: classes of the split.
        counts: of its objects.
        annotated: whether there are any annotations.
    """
    if not annotated:
        findings.add("no-annotations", split, Example("it has no key 'annotations'"))
        return
    if not counts.objects:
        findings.add("nothing-to-learn", split, Example(counts.nothing_because()))
        return
    numbers = dict(zip(categories.names, counts.per_class, strict=True))
    if bare := [name for name, number in numbers.items() if not number]:
        findings.add("class-without-objects", split, Example(join_first(bare)), len(bare))
    most = max(numbers, key=lambda name: numbers[name])
    if rare := {name: n for name, n in numbers.items() if 0 < n * _IMBALANCE < numbers[most]}:
        text = join_first(f"{name} {n}" for name, n in rare.items())
        findings.add(
            "class-imbalance", split, Example(f"{most} has {numbers[most]} objects; {text}"), len(rare)
        )
    twice = [name for name, count in Counter(categories.names).items() if count > 1]
    if twice:
        findings.add("category-name-twice", split, Example(join_first(twice)), len(twice))
    if counts.images >= _ENOUGH and counts.empty_images > counts.images / 2:
        text = f"{counts.empty_images} of {counts.images} images"
        findings.add("images-without-objects", split, Example(text), counts.empty_images)
