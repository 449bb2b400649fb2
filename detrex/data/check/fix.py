"""Writes a cleaned copy of instance annotations, and lists what it changed."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeGuard

import msgspec
import numpy as np

from detrex.data.check.annotations import SplitFacts
from detrex.data.check.findings import KINDS
from detrex.data.check.run import CheckOptions, CheckReport, Nowhere, open_members
from detrex.data.coco.object_reader import CocoObject, ObjectReader, View, in_unit
from detrex.data.coco.reader import ReadOptions, Tally
from detrex.data.coco.segmentation import Segmentation
from detrex.data.coco.store import StoreWriter
from detrex.data.errors import DataError
from detrex.data.file_names import near_names
from detrex.data.sources import Source
from detrex.runtime.files import replaced_file
from detrex.structures import Categories

_BROKEN = {"polygon-broken", "rle-broken", "segmentation-missing"}
_DIGITS = 2  # digits of coordinates after the point

Changes = Mapping[str, int]
"""Number of changes by kind, in words."""


def write_fixed(report: CheckReport, output: Path, options: CheckOptions) -> dict[str, Changes]:
    """Writes ``OUTPUT/SPLIT.json`` in COCO's format for each split of instances, and ``OUTPUT/changes.json``.

    Pictures and original annotations are not touched.

    Args:
        report: of the check.
        output: a folder that does not contain these files.
        options: of the check.

    Returns:
        The changes of each split.

    Raises:
        DataError: a file exists already, or the annotations of a split are label maps.
    """
    if pixels := [source.split for source in report.sources if source.task != "instances"]:
        raise DataError(
            f"a cleaned copy is made of instance annotations alone; those of {', '.join(pixels)} are "
            f"pixels, to be "
            "corrected where they were drawn"
        )
    targets = {source.split: output / f"{source.split}.json" for source in report.sources}
    if there := [path for path in (*targets.values(), output / "changes.json") if path.exists()]:
        raise DataError(f"{there[0]} exists. Give another folder for the cleaned copy.")
    output.mkdir(parents=True, exist_ok=True)
    facts = {f.name: f for f in report.facts}
    changes: dict[str, Changes] = {}
    for source in report.sources:
        if source.split not in facts:
            changes[source.split] = {"not written: the annotations cannot be read": 1}
            continue
        fixer = Fixer(source, facts[source.split], report, options)
        with replaced_file(targets[source.split]) as path:
            fixer.write(path)
        changes[source.split] = dict(fixer.changes)
    (output / "changes.json").write_text(json.dumps(changes, indent=2) + "\n", encoding="utf-8")
    return changes


class Fixer(ObjectReader):
    """Reads annotations as training does, and writes those that it keeps.

    Args:
        source: the split.
        facts: what the check read from it.
        report: of the check.
        options: of the check.

    Attributes:
        changes: number of changes by kind.
    """

    def __init__(self, source: Source, facts: SplitFacts, report: CheckReport, options: CheckOptions):
        super().__init__(
            source.annotations, ReadOptions(source.images, options.orientation, options.leave_folder)
        )
        self.changes: Counter[str] = Counter()
        self._source, self._report, self._split = source, report, source.split
        self._has_masks = facts.has_masks
        self._corners = report.findings.count("bbox-corners", source.split) > 0
        self._all_crowds = report.findings.count("all-crowds", source.split) > 0
        lost = [facts.files[index] for index in facts.missing]
        found = near_names(source.images, lost)[1] if lost and source.images.is_dir() else {}
        self._renamed = found
        self._unusable = ({facts.files[i] for i in facts.missing} - found.keys()) | {
            facts.files[i] for i in facts.broken
        }
        assert facts.categories is not None
        self._category_of, self._categories = _merged(facts.categories, self.changes)
        self._out: TextIO | None = None

    def write(self, path: Path) -> None:
        """Writes the cleaned copy."""
        entries = path.with_suffix(".entries")
        try:
            with entries.open("w", encoding="utf-8") as self._out, open_members(self._source) as members:
                self(members, StoreWriter(Nowhere()))
            with path.open("w", encoding="utf-8") as out, entries.open(encoding="utf-8") as written:
                out.write(f'{{"images": {json.dumps(list(self._images()))},\n')
                out.write(f'"categories": {json.dumps(self._categories)},\n"annotations": [')
                for line in written:
                    out.write(line)
                out.write("]}\n")
        finally:
            entries.unlink(missing_ok=True)

    def start(self) -> None:
        super().start()
        self._raw_images: list[bytes] = []
        self._written = 0
        self._first_place: dict[str, int] = {}
        self._seen: set[int] = set()
        self._ids: set[int | str] = set()
        self._failed = ""

    def tally(self, what: str, kind: str) -> Tally:
        return Tally(what, lambda: self._count(kind))

    def fail(self, view: View, kind: str, message: str) -> None:
        super().fail(view, kind, message)
        self._failed = kind

    def checked_categories(self, categories: Categories) -> Categories:
        del categories  # the check's classes count; here, every id that occurs is accepted
        return Categories.from_coco(
            [{"id": i, "name": str(i)} for i in self.first_of_category] or [{"id": 0, "name": ""}]
        )

    def add_image(self, image: Any) -> None:
        try:
            super().add_image(image)
        except DataError as error:
            self._count(error.kind)
            return
        kept = {k: v for k, v in image.items() if k not in ("id", "file_name", "height", "width")}
        self._raw_images.append(msgspec.msgpack.encode(kept))
        name = self.names[-1]
        if self._first_place.setdefault(name, len(self.names) - 1) != len(self.names) - 1:
            self._count("image-listed-twice")

    def keep(self, annotation: Any) -> tuple[int, CocoObject] | None:
        self._failed = ""
        try:
            mended = self._mended(annotation) if isinstance(annotation, dict) else annotation
            kept = super().keep(mended)
        except DataError as error:
            self._count(error.kind)
            return None
        if self._failed in _BROKEN and (self._has_masks or self._failed != "segmentation-missing"):
            self._count(self._failed)
            return kept
        if kept is None:
            if self._failed:
                self._count(self._failed)
            return None
        place, found = kept
        if self._has_masks and found.segmentation is None and not found.is_crowd:
            return kept  # counted when its mask was read
        if self.names[place] in self._unusable:
            self.changes["annotations of images that are missing or broken: taken out"] += 1
            return kept
        if found.category_id not in self._category_of:
            self._count("unknown-category")
            return kept
        if self.digests[-1] in self._seen:
            self._count("annotation-twice")
            return kept
        self._seen.add(self.digests[-1])
        self._write(mended, self._first_place[self.names[place]], found)
        return kept

    def _write(self, annotation: Mapping[str, Any], place: int, found: CocoObject) -> None:
        assert self._out is not None
        self._written += 1
        number = annotation.get("id")
        if isinstance(number, int | str):
            if number in self._ids:
                self._count("annotation-id-twice")
            self._ids.add(number)
        x0, y0, x1, y1 = found.box
        box = [round(v, _DIGITS) for v in (x0, y0, x1 - x0, y1 - y0)]
        entry = {
            **annotation,
            "id": self._written,
            "image_id": place + 1,
            "category_id": self._category_of[found.category_id],
            "iscrowd": int(found.is_crowd),
            "bbox": box,
            "area": round(found.area, _DIGITS),
        }
        entry.pop("segmentation", None)
        if found.segmentation is not None:
            size = self.sizes[2 * place], self.sizes[2 * place + 1]
            entry["segmentation"] = self._shape_of(found.segmentation, size)
        self._out.write((",\n" if self._written > 1 else "\n") + json.dumps(entry))

    def _shape_of(self, segmentation: Segmentation, size: tuple[int, int]) -> Any:
        if segmentation.counts:
            return {"size": list(size), "counts": segmentation.counts.decode("ascii")}
        polygons = [np.frombuffer(polygon).reshape(-1, 2) for polygon in segmentation.polygons]
        inside = [clipped(polygon, size) for polygon in polygons]
        if any(len(a) != len(b) or not np.array_equal(a, b) for a, b in zip(polygons, inside, strict=True)):
            self._count("polygon-outside")
        return [polygon.round(_DIGITS).ravel().tolist() for polygon in inside if len(polygon) >= 3]

    def _mended(self, annotation: Mapping[str, Any]) -> dict[str, Any]:
        mended = dict(annotation)
        if self._all_crowds and mended.get("iscrowd"):
            mended["iscrowd"] = 0
            self._count("all-crowds")
        segmentation = mended.get("segmentation")
        if isinstance(segmentation, list) and segmentation:
            polygons = flattened(segmentation)
            if polygons != segmentation:
                mended["segmentation"] = segmentation = polygons
                self.changes["polygons as pairs or one flat list: written as lists of numbers"] += 1
        if isinstance(segmentation, dict) and str(segmentation.get("counts"))[:2] in ("b'", 'b"'):
            try:
                counts = ast.literal_eval(segmentation["counts"]).decode("ascii")
                mended["segmentation"] = {**segmentation, "counts": counts}
                self.changes["RLE written as Python bytes: decoded"] += 1
            except (ValueError, SyntaxError, UnicodeDecodeError):
                pass  # the reader rejects it
        self._scale(mended)
        box = mended.get("bbox")
        if self._corners and _is_numbers(box) and box[2] > box[0] and box[3] > box[1]:
            mended["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            self._count("bbox-corners")
        return mended

    def _scale(self, mended: dict[str, Any]) -> None:
        """Converts coordinates in 0..1 to pixels."""
        if not self._report.findings.count("normalised", self._split):
            return
        try:
            row = self.row_of(mended["image_id"], str)
        except (DataError, KeyError, TypeError):
            return
        height, width = row.size
        box, polygons = mended.get("bbox"), mended.get("segmentation")
        changed = False
        if _is_numbers(box) and in_unit([[box[0], box[1], box[0] + box[2], box[1] + box[3]]]):
            mended["bbox"], changed = [v * (height if k % 2 else width) for k, v in enumerate(box)], True
        if isinstance(polygons, list) and all(map(_is_numbers, polygons)) and polygons and in_unit(polygons):
            scaled = [[v * (height if k % 2 else width) for k, v in enumerate(p)] for p in polygons]
            mended["segmentation"], changed = scaled, True
        if changed:
            mended.pop("area", None)
            self._count("normalised")

    def _images(self) -> Iterator[dict[str, Any]]:
        for place, packed in enumerate(self._raw_images):
            name = self.names[place]
            if self._first_place[name] != place:
                continue
            if name in self._unusable:
                self.changes["images that are missing or broken: taken out"] += 1
                continue
            if name in self._renamed:
                self.changes["names of images: as the files are called"] += 1
            yield {
                **msgspec.msgpack.decode(packed),
                "id": place + 1,
                "file_name": self._renamed.get(name, name),
                "height": self.sizes[2 * place],
                "width": self.sizes[2 * place + 1],
            }

    def _count(self, kind: str) -> None:
        known = KINDS[kind]
        self.changes[f"{known.title}: {known.fixed or 'left as it is'}"] += 1


def flattened(polygons: list[Any]) -> list[Any]:
    """Polygons in COCO's form, from one flat list of numbers or from points given as pairs."""
    if _is_numbers(polygons):
        return [polygons]
    if all(_is_numbers(p) and len(p) == 2 for p in polygons) and len(polygons) >= 3:
        return [[v for pair in polygons for v in pair]]
    flat = []
    for polygon in polygons:
        is_pairs = (
            isinstance(polygon, list) and polygon and all(_is_numbers(p) and len(p) == 2 for p in polygon)
        )
        flat.append([v for pair in polygon for v in pair] if is_pairs else polygon)
    return flat


def clipped(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Clips a polygon to its image by Sutherland and Hodgman's algorithm.

    Args:
        polygon: (N, 2) x and y in pixels.
        size: (height, width) of the image in pixels.
    """
    height, width = size
    for axis, limit, sign in ((0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1)):
        if not len(polygon) or (sign * (polygon[:, axis] - limit) >= 0).all():
            continue
        kept = []
        for start, end in zip(np.roll(polygon, 1, axis=0), polygon, strict=True):
            inside = sign * (start[axis] - limit) >= 0, sign * (end[axis] - limit) >= 0
            if inside[0] != inside[1]:
                share = (limit - start[axis]) / (end[axis] - start[axis])
                kept.append(start + share * (end - start))
            if inside[1]:
                kept.append(end)
        polygon = np.array(kept).reshape(-1, 2)
    return polygon


def _merged(categories: Categories, changes: Counter[str]) -> tuple[dict[int, int], list[dict[str, Any]]]:
    """Merges classes of the same name: the id that each listed class has in the copy, and the new list."""
    first: dict[str, int] = {}
    ids: dict[int, int] = {}
    for category_id, name in zip(categories.ids, categories.names, strict=True):
        plain = name.strip()
        if name.endswith(", which is not listed"):
            continue
        if plain != name:
            changes["spaces around names of classes: taken off"] += 1
        if plain in first:
            changes[f"{KINDS['category-name-twice'].title}: merged"] += 1
        ids[category_id] = first.setdefault(plain, category_id)
    return ids, [{"id": i, "name": name} for name, i in first.items()]


def _is_numbers(value: Any) -> TypeGuard[list[float]]:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    )
