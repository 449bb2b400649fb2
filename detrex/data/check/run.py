"""Checks the splits of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from detrex.data.categories import read_categories
from detrex.data.census import Census, Split
from detrex.data.check.advice import advise
from detrex.data.check.annotations import InstanceChecker, PanopticChecker, SplitFacts
from detrex.data.check.findings import KINDS, Example, Finding, Findings
from detrex.data.check.label_maps import LabelMapChecker, check_segments_of, find_label_maps
from detrex.data.check.pixels import (
    Pictures,
    check_doubles,
    check_leaks,
    check_names,
    check_pictures,
    check_unlisted,
)
from detrex.data.checks import spread
from detrex.data.coco.cache import Members, reading_progress
from detrex.data.coco.categories import parse_categories
from detrex.data.coco.json_stream import stream_members
from detrex.data.coco.reader import ReadOptions
from detrex.data.coco.store import StoreWriter
from detrex.data.errors import DataError
from detrex.data.formats import members_of, open_unpacked, recognise
from detrex.data.formats.collected import fail
from detrex.data.image_io import Orientation
from detrex.data.sources import Source

Item = TypeVar("Item")
Track = Callable[[Sequence[Any], str], Iterable[Any]]
"""Yields items while it shows the progress under a title."""


def untracked(items: Sequence[Item], title: str) -> Iterable[Item]:
    """Yields the items without showing progress."""
    del title
    return items


@dataclass(frozen=True)
class CheckOptions:
    """What to check, and how to read the data set.

    Attributes:
        pictures: number of evenly spread pictures of each split to decode; None: all.
        queries: number of queries of the model, compared with numbers of objects; None: not known.
        crop: side of the crops in training in pixels, for label maps.
        ignore_labels: values of unlabelled pixels in label maps.
        image_suffix, segment_suffix: see :class:`detrex.data.SemanticFolder`.
        orientation, value_range, leave_folder: see :class:`detrex.data.CocoInstances`.
    """

    pictures: int | None = None
    queries: int | None = None
    crop: int = 512
    ignore_labels: Sequence[int] = (255,)
    image_suffix: str = ""
    segment_suffix: str = ".png"
    orientation: Orientation = "auto"
    value_range: tuple[float, float] | None = None
    leave_folder: bool = False


@dataclass
class CheckReport:
    """The result of a check.

    Attributes:
        sources: the splits.
        facts: what was read from each split.
        findings: the faults, errors first.
        advice: settings that fit, by name.
    """

    sources: Sequence[Source]
    facts: list[SplitFacts] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    advice: Mapping[str, str] = field(default_factory=dict)

    @property
    def census(self) -> Census | None:
        """The content of the splits; None if it is not known."""
        splits = [
            Split(f.name, f.categories, f.counts)
            for f in self.facts
            if f.categories is not None and f.counts is not None
        ]
        return Census(splits) if splits else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "splits": [
                {"split": s.split, "format": s.format, "task": s.task, **s.arguments()} for s in self.sources
            ],
            "census": {f.name: _census(f) for f in self.facts},
            "findings": [_plain(finding) for finding in self.findings.sorted()],
            "worst": self.findings.worst(),
            "advice": dict(self.advice),
        }


def check_sources(
    sources: Sequence[Source], options: CheckOptions = CheckOptions(), track: Track = untracked
) -> CheckReport:
    """Checks each split, and compares it with the others.

    Args:
        sources: the splits; the first one is to train on.
        options: what to check.
        track: shows the progress.
    """
    report = CheckReport(sources)
    seen: list[tuple[SplitFacts, Path, Pictures]] = []
    for source in sources:
        facts, pictures = _check_split(source, options, report.findings, track)
        if facts is None:
            continue
        report.facts.append(facts)
        _check_queries(facts, options.queries, report.findings)
        if pictures is not None:
            check_doubles(facts, source.images, pictures, report.findings)
            for other in seen:
                check_leaks((facts, source.images, pictures), other, report.findings)
            seen.append((facts, source.images, pictures))
    _compare_classes(report.facts, report.findings)
    report.advice = advise(report.facts)
    return report


def not_opened(error: DataError) -> CheckReport:
    """The report of a path at which no data set was found."""
    report = CheckReport([])
    _note_unreadable(error, "data", report.findings)
    return report


def _note_unreadable(error: Exception, split: str, findings: Findings) -> None:
    kind = getattr(error, "kind", "unreadable")
    findings.add("unreadable" if kind == "invalid-entry" else kind, split, Example(str(error)))


def _check_split(
    source: Source, options: CheckOptions, findings: Findings, track: Track
) -> tuple[SplitFacts | None, Pictures | None]:
    name = source.split
    try:
        if source.task == "semantic":
            facts = _check_semantic(source, options, findings, track)
        else:
            facts = _check_annotations(source, options, findings, track)
    except (DataError, OSError) as error:
        _note_unreadable(error, name, findings)
        return None, None
    if options.pictures == 0 or not facts.files:
        return facts, None
    count = len(facts.files) if options.pictures is None else options.pictures
    chosen = track(spread(len(facts.files), count), f"{name}: pictures")
    has_range = options.value_range is not None
    pictures = check_pictures(facts, source.images, chosen, findings, options.orientation, has_range)
    check_names(facts, source.images, findings)
    if source.task != "semantic":
        check_unlisted(facts, source.images, findings)
    return facts, pictures


def _check_semantic(source: Source, options: CheckOptions, findings: Findings, track: Track) -> SplitFacts:
    if isinstance(source.classes, Path):
        categories = read_categories(source.classes)
    else:
        categories = parse_categories(list(source.classes or ()), "classes")
    suffixes = options.image_suffix, options.segment_suffix
    labels = find_label_maps(source.split, source.images, source.annotations, suffixes, findings)
    ignored, crop = options.ignore_labels, options.crop
    checker = LabelMapChecker(source.split, categories, source.images, labels, ignored, crop, findings)
    count = len(labels) if options.pictures is None else options.pictures
    files = list(labels)
    checker.check(track([files[k] for k in spread(len(files), count)], f"{source.split}: label maps"))
    return checker.conclude()


def _check_annotations(source: Source, options: CheckOptions, findings: Findings, track: Track) -> SplitFacts:
    read_options = ReadOptions(source.images, options.orientation, options.leave_folder)
    kind_of_checker = PanopticChecker if source.task == "panoptic" else InstanceChecker
    checker = kind_of_checker(source.annotations, read_options, source.split, findings)

    def note(error: DataError) -> None:
        findings.add(error.kind, source.split, Example(str(error)))

    with open_members(source, note) as members:
        header, _ = checker(members, StoreWriter(Nowhere()))
    facts = checker.conclude(header)
    if isinstance(checker, PanopticChecker) and source.segments is not None and options.pictures != 0:
        chosen = spread(len(facts.files), options.pictures or len(facts.files))
        tracked = track(chosen, f"{source.split}: segments")
        check_segments_of(checker, facts, source.segments, tracked, findings)
    return facts


@contextmanager
def open_members(source: Source, on_error: Callable[[DataError], None] = fail) -> Iterator[Members]:
    """Yields a function that returns the members of a source's annotations anew with each call.

    Args:
        source: the split.
        on_error: called with errors in formats other than COCO's.
    """
    path = source.annotations
    if (kind := recognise(path)) is not None:
        yield lambda: members_of(path, kind, source.images, on_error)
        return
    with open_unpacked(path) as file, reading_progress(path, path.stat().st_size) as advance:

        def members() -> Iterator[tuple[str, Any]]:
            file.seek(0)
            return stream_members(file, lambda data: advance(len(data)))

        yield members


class Nowhere:
    """A file that discards what is written to it."""

    def write(self, data: bytes | memoryview) -> int:
        return len(data)

    def flush(self) -> None:
        """Does nothing."""


def _check_queries(facts: SplitFacts, queries: int | None, findings: Findings) -> None:
    if queries is None or not len(facts.objects):
        return
    crowded = (facts.objects > queries).nonzero()[0].tolist()
    for index in crowded:
        text = f"{facts.files[index]} has {facts.objects[index]} objects; the model has {queries} queries"
        findings.add("too-many-objects", facts.name, Example(text))


def _compare_classes(splits: Sequence[SplitFacts], findings: Findings) -> None:
    known = [(f.name, f.categories) for f in splits if f.categories is not None]
    if not known:
        return
    first_name, first_classes = known[0]
    first = dict(zip(first_classes.ids, first_classes.names, strict=True))
    for split, categories in known[1:]:
        for category_id, name in zip(categories.ids, categories.names, strict=True):
            if first.get(category_id) != name:
                text = f"{category_id} is {name!r}, in {first_name} {first.get(category_id)!r}"
                findings.add("splits-disagree", split, Example(text))


def _census(facts: SplitFacts) -> dict[str, Any]:
    counts, categories = facts.counts, facts.categories
    if counts is None or categories is None:
        return {"images": len(facts.files)}
    return {
        "images": counts.images,
        "objects": counts.objects,
        "crowds": counts.crowds,
        "images_without_objects": counts.empty_images,
        "most_objects": counts.most,
        "small": counts.small,
        "medium": counts.medium,
        "large": counts.large,
        "per_class": dict(zip(categories.names, counts.per_class, strict=True)),
    }


def _plain(finding: Finding) -> dict[str, Any]:
    kind = KINDS[finding.kind]
    return {
        "kind": finding.kind,
        "severity": kind.severity,
        "split": finding.split,
        "title": kind.title,
        "count": finding.count,
        "advice": kind.advice,
        "examples": [example.text for example in finding.examples],
    }
