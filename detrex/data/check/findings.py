"""The kinds of faults that a data set can have, and the faults that were found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning"]

EXAMPLES = 8
"""Number of examples that are kept of each kind."""


class Kind(NamedTuple):
    """A kind of fault.

    Attributes:
        severity: an error stops a run or spoils what is learned or measured; a warning asks whether something
            is intended.
        title: name of the fault.
        advice: what to do about it.
        fixed: what ``--fix`` does about it; empty if nothing.
    """

    severity: Severity
    title: str
    advice: str
    fixed: str = ""


KINDS: Mapping[str, Kind] = {
    # The file as a whole
    "unreadable": Kind("error", "a file cannot be read", "Copy or export it again."),
    "unknown-format": Kind("error", "a file is of no known format", "Convert it, or give another path."),
    "no-images": Kind("error", "no images are listed", "Give a file with 'images'."),
    "no-annotations": Kind("error", "there are no annotations", "Give the file of a split with annotations."),
    "no-categories": Kind("error", "no classes are listed", "Add the list 'categories'."),
    "nothing-to-learn": Kind("error", "there is no object to learn from", "See the other findings."),
    # Entries
    "invalid-entry": Kind(
        "error", "entries have keys that are missing or of a wrong type", "Correct them.", "taken out"
    ),
    "category-id-twice": Kind("error", "one category id has several names", "Give each class its own id."),
    "category-name-twice": Kind(
        "warning", "several category ids have one name", "Merge them, if they are one class.", "merged"
    ),
    "unknown-category": Kind(
        "error", "objects have a category that is not listed", "Add it, or correct the id.", "taken out"
    ),
    "class-without-objects": Kind("warning", "classes have no objects", "Take them out, or add pictures."),
    "class-imbalance": Kind(
        "warning",
        "the most frequent class has far more objects than others",
        "Add pictures of rare classes, or expect little of them.",
    ),
    "image-id-twice": Kind("error", "image ids are listed twice", "Give each image its own id.", "taken out"),
    "image-listed-twice": Kind("warning", "images are listed under several ids", "List each once.", "merged"),
    "image-unannotated": Kind("warning", "images have no annotation", "Annotate them, or take them out."),
    "images-without-objects": Kind(
        "warning", "most images have no objects", "Check that no annotations were lost in conversion."
    ),
    "size-missing": Kind("error", "images have no size, and it cannot be read", "Add width and height."),
    "file-name-leaves-folder": Kind(
        "error", "names of files lead out of their folder", "Give names inside of the folder.", "taken out"
    ),
    "unknown-image": Kind(
        "error", "objects belong to images that are not listed", "Add the images.", "taken out"
    ),
    "annotation-id-twice": Kind(
        "warning", "annotation ids are listed twice", "Number them anew.", "numbered anew"
    ),
    "annotation-twice": Kind(
        "warning",
        "annotations are listed twice: same image, category and shape",
        "Take one out.",
        "taken out",
    ),
    "annotated-twice": Kind("error", "an image has two panoptic annotations", "Take one out."),
    # Shapes
    "all-crowds": Kind(
        "error",
        "all objects are crowds, which nothing is learned from",
        "Set iscrowd to 0 for single objects.",
        "set to 0",
    ),
    "many-crowds": Kind(
        "warning", "many objects are crowds, which nothing is learned from", "Are they meant?"
    ),
    "bbox-broken": Kind(
        "error", "boxes are no four finite numbers", "Correct them.", "taken from the mask, or out"
    ),
    "bbox-degenerate": Kind("warning", "boxes have no extent in their image", "Correct them.", "taken out"),
    "bbox-outside": Kind("warning", "boxes reach out of their image", "Correct them.", "clipped"),
    "bbox-corners": Kind(
        "error", "boxes seem to be x0, y0, x1, y1", "Write x, y, width, height.", "converted"
    ),
    "bbox-unlike-mask": Kind(
        "warning", "boxes are not those of their masks", "Correct them.", "taken from the mask"
    ),
    "area-wrong": Kind("warning", "areas cannot be right", "Take them out; they are computed.", "computed"),
    "segmentation-missing": Kind(
        "error", "some objects have a mask and others have none", "Add masks, or use boxes only."
    ),
    "segmentation-degenerate": Kind(
        "warning", "masks cover no pixel of their image", "Correct them.", "taken out"
    ),
    "no-shape": Kind("error", "objects have neither box nor mask", "Add one of them.", "taken out"),
    "polygon-broken": Kind(
        "error",
        "polygons are no lists x, y, x, y, ... of finite numbers in the image",
        "Correct them.",
        "flattened where they are pairs, else taken out",
    ),
    "polygon-outside": Kind("warning", "polygons reach out of their image", "Correct them.", "clipped"),
    "rle-broken": Kind(
        "error", "RLE masks cannot be decoded or do not fit their image", "Correct them.", "taken out"
    ),
    "normalised": Kind(
        "error",
        "all coordinates are between 0 and 1",
        "Expected are pixels.",
        "multiplied by the image's size",
    ),
    "per-cent": Kind("warning", "all coordinates are at most 100 in larger images", "Expected are pixels."),
    "not-an-area": Kind("warning", "shapes that are no areas are left out", "Draw polygons, boxes or masks."),
    "tiny-object": Kind(
        "warning",
        "objects are less than 2 pixels wide or high",
        "Nothing can be learned from them; are they meant?",
    ),
    "huge-object": Kind(
        "warning", "objects cover their whole image", "Are they meant, or frames of the picture?"
    ),
    "too-many-objects": Kind(
        "warning",
        "images have more objects than the model has queries",
        "Raise num_queries, or cut the images.",
    ),
    # Pixels
    "image-missing": Kind("error", "images are not there", "Put them back, or take them out.", "taken out"),
    "image-broken": Kind("error", "images cannot be decoded", "Replace them.", "taken out"),
    "image-size": Kind(
        "error",
        "images are of another size than listed",
        "Correct width and height, or put back the annotated image.",
    ),
    "image-turned": Kind(
        "warning", "images are to be turned (EXIF)", "Check on which picture annotations were drawn."
    ),
    "image-deep": Kind("warning", "images use a part of 16 bits a channel", "Set value_range=[0,4095]."),
    "image-frames": Kind("warning", "files hold several pictures, of which the first is used", "Split them."),
    "image-blank": Kind("warning", "images are of one colour", "Are they meant?"),
    "image-type": Kind("warning", "images are of another type than their names say", "Rename them."),
    "image-unlisted": Kind("warning", "images in the folder are not listed", "List them, or move them."),
    "image-twice": Kind("warning", "pictures are there twice, byte by byte", "Keep one."),
    "image-alike": Kind("warning", "pictures are nearly the same", "Keep one, if they are one."),
    "leak": Kind("error", "pictures are in several splits", "Take them out of one.", ""),
    "leak-alike": Kind(
        "warning", "pictures of several splits are nearly the same", "Keep them in one split."
    ),
    "splits-disagree": Kind(
        "error", "splits have other classes", "Give all splits the same list of classes."
    ),
    # Label maps and panoptic PNGs
    "labels-missing": Kind("error", "images have no label map", "Add it, or take the image out."),
    "labels-broken": Kind("error", "label maps cannot be read, or are colours", "Convert them to class ids."),
    "labels-size": Kind(
        "error", "label maps are of another size than their image", "Make the two of one size."
    ),
    "labels-unknown": Kind(
        "error", "label maps have values that are no classes", "Correct classes or ignore_label."
    ),
    "labels-void": Kind("warning", "label maps have no labelled pixel", "Take the images out."),
    "labels-void-crops": Kind(
        "warning",
        "many crops of the training size have no labelled pixel",
        "Label more, or crop more tightly.",
    ),
    "labels-absent": Kind("warning", "classes occur in no label map", "Check ids and ignore_label."),
    "isthing-missing": Kind(
        "warning", "categories do not say whether they are things", "Add isthing, 0 or 1."
    ),
    "no-stuff": Kind("warning", "all classes are things", "Set isthing of stuff to 0."),
    "segments-missing": Kind("error", "panoptic PNGs are not there", "Put them back."),
    "segments-broken": Kind("error", "panoptic PNGs cannot be read or are of another size", "Replace them."),
    "segments-disagree": Kind(
        "error", "panoptic PNGs and their annotations list other segments", "Make them agree."
    ),
    "segment-area": Kind("warning", "areas of segments are not those in the PNG", "Compute them anew."),
}


class Example(NamedTuple):
    """One place where a fault was found.

    Attributes:
        text: the image, the id and the fault.
        image: path of the picture, if there is one to show.
        entry: the annotation as it is in the file, if there is one.
    """

    text: str
    image: str = ""
    entry: Mapping[str, Any] | None = None


@dataclass
class Finding:
    """All faults of one kind in one split.

    Attributes:
        kind: a key of :data:`KINDS`.
        split: name of the split.
        count: number of faults.
        examples: the first ones.
    """

    kind: str
    split: str
    count: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def severity(self) -> Severity:
        """The severity of this kind of finding."""
        return KINDS[self.kind].severity

    @property
    def title(self) -> str:
        """The name of the fault, with the count."""
        return f"{self.split}: {KINDS[self.kind].title} ({self.count})"


class Findings:
    """All findings, with a few examples of each kind; memory does not grow with the data set."""

    def __init__(self) -> None:
        self._by_kind: dict[tuple[str, str], Finding] = {}

    def add(self, kind: str, split: str, example: Example, count: int = 1) -> None:
        """Notes ``count`` faults of one kind."""
        finding = self._by_kind.setdefault((split, kind), Finding(kind, split))
        finding.count += count
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(example)

    def drop(self, kind: str, split: str) -> int:
        """Forgets the findings of a kind that turned out to be no faults; returns their number."""
        finding = self._by_kind.pop((split, kind), None)
        return 0 if finding is None else finding.count

    def count(self, kind: str, split: str) -> int:
        """The number of faults of a kind."""
        finding = self._by_kind.get((split, kind))
        return 0 if finding is None else finding.count

    def sorted(self) -> list[Finding]:
        """All findings, errors first."""
        return sorted(self._by_kind.values(), key=lambda finding: (finding.severity, finding.split))

    def worst(self) -> Severity | None:
        """The severity of the worst finding; None if there is none."""
        severities = {finding.severity for finding in self._by_kind.values()}
        return "error" if "error" in severities else "warning" if severities else None


def join_first(names: Iterable[str], shown: int = 8) -> str:
    """Joins the first names, followed by dots if there are more."""
    names = list(names)
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
