"""Counts what a data set holds: images, objects, classes, sizes, and what was left out for which reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from detrex.runtime.tables import markdown_table
from detrex.structures import Categories

_NAMED = 10  # classes in a warning

SMALL, LARGE = 32**2, 96**2
"""COCO's borders of small, medium and large objects, in square pixels of area."""


class ObjectCounts(msgspec.Struct, frozen=True):
    """Counts of the objects of a data set.

    Attributes:
        images: number of images.
        per_class: number of objects of each class, by class index, without crowds.
        crowds_per_class: number of crowds of each class, by class index.
        left_out: number of annotations that are not objects, by reason.
        small, medium, large: number of objects by area, see :data:`SMALL` and :data:`LARGE`.
        empty_images: number of images without an object.
        median, nearly_all, most: the number of objects in an image that half of the images, 99 % of them and
            all of them do not exceed.
    """

    images: int
    per_class: list[int]
    crowds_per_class: list[int]
    left_out: dict[str, int]
    small: int
    medium: int
    large: int
    empty_images: int
    median: float
    nearly_all: float
    most: int

    @property
    def objects(self) -> int:
        """The number of objects."""
        return sum(self.per_class)

    @property
    def crowds(self) -> int:
        """The number of crowds."""
        return sum(self.crowds_per_class)

    def nothing_because(self) -> str:
        """The reason why there are no objects."""
        reasons = {f"{name}": count for name, count in self.left_out.items() if count}
        if self.crowds:
            reasons[
                "are crowds (iscrowd 1), which nothing can be learned from; if they are single objects, set 0"
            ] = self.crowds
        if not reasons:
            return "it has no annotations"
        return "of its annotations, " + "; ".join(f"{count} {name}" for name, count in reasons.items())


def count_objects(
    images: int,
    classes: int,
    owner: np.ndarray,
    label: np.ndarray,
    crowd: np.ndarray,
    area: np.ndarray,
    left_out: Mapping[str, int],
) -> ObjectCounts:
    """Counts N objects and crowds.

    Args:
        images: number of images.
        classes: number of classes.
        owner: (N,) integers, the index of each object's image.
        label: (N,) integers, class indices.
        crowd: (N,) bool.
        area: (N,) in square pixels; NaN if it is not known.
        left_out: number of annotations that are not among the N, by reason.
    """
    single = ~crowd
    in_image = np.bincount(owner[single], minlength=images)
    area = area[single]
    return ObjectCounts(
        images=images,
        per_class=np.bincount(label[single], minlength=classes).tolist(),
        crowds_per_class=np.bincount(label[crowd], minlength=classes).tolist(),
        left_out={reason: count for reason, count in left_out.items() if count},
        small=int((area < SMALL).sum()),
        medium=int(((area >= SMALL) & (area < LARGE)).sum()),
        large=int((area >= LARGE).sum()),
        empty_images=int((in_image == 0).sum()),
        median=float(np.median(in_image)),
        nearly_all=float(np.percentile(in_image, 99)),
        most=int(in_image.max()),
    )


Rows = list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Split:
    """The content of one data set of a run.

    Attributes:
        name: ``"train"`` or ``"validation"``.
        categories: its classes.
        counts: of its objects.
    """

    name: str
    categories: Categories
    counts: ObjectCounts

    @property
    def by_class(self) -> dict[str, int]:
        """Number of objects by class name; classes with the same name are counted together."""
        numbers: dict[str, int] = {}
        for name, count in zip(self.categories.names, self.counts.per_class, strict=True):
            numbers[name] = numbers.get(name, 0) + count
        return numbers


@dataclass(frozen=True)
class Census:
    """The content of the data sets of a run, compared with what its model can find.

    Attributes:
        splits: the data sets.
        queries: number of objects that the model can find in an image; None if it is not known.
    """

    splits: Sequence[Split]
    queries: int | None = None

    @property
    def columns(self) -> list[str]:
        """Titles of the columns of both tables: the splits."""
        return [split.name for split in self.splits]

    def overview(self) -> Rows:
        """Rows of a table: a title, and a cell for each split."""
        counts = [split.counts for split in self.splits]
        reasons = dict.fromkeys(reason for c in counts for reason in c.left_out)
        titled: dict[str, list[float]] = {
            "images": [c.images for c in counts],
            "images without objects": [c.empty_images for c in counts],
            "objects": [c.objects for c in counts],
            "crowds": [c.crowds for c in counts],
            **{f"left out: {reason}": [c.left_out.get(reason, 0) for c in counts] for reason in reasons},
            "small (area below 32 x 32)": [c.small for c in counts],
            "medium": [c.medium for c in counts],
            "large (from 96 x 96)": [c.large for c in counts],
            "objects per image: median": [c.median for c in counts],
            "99 % of the images have at most": [c.nearly_all for c in counts],
            "most": [c.most for c in counts],
        }
        rows = [(title, [f"{value:g}" for value in values]) for title, values in titled.items()]
        return rows + (
            [] if self.queries is None else [("queries of the model", [str(self.queries)] * len(counts))]
        )

    def classes(self) -> Rows:
        """Rows of a table: each class, and its number of objects in each split."""
        names = dict.fromkeys(name for split in self.splits for name in split.by_class)
        numbers = [split.by_class for split in self.splits]
        return [(name, [str(n[name]) if name in n else "-" for n in numbers]) for name in names]

    def text(self) -> str:
        """Both tables as text, for a log."""
        overview = markdown_table(self.columns, self.overview())
        return f"{overview}\n\nobjects per class:\n{markdown_table(self.columns, self.classes())}"

    def warnings(self) -> list[str]:
        """Warnings about what may not be intended."""
        found = []
        for split in self.splits:
            bare = [name for name, count in split.by_class.items() if not count]
            if bare and split.counts.objects:
                first = ", ".join(bare[:_NAMED]) + (", ..." if len(bare) > _NAMED else "")
                found.append(
                    f"{split.name}: {len(bare)} of {len(split.by_class)} classes have no objects ({first})"
                )
            if self.queries is not None and split.counts.most > self.queries:
                found.append(
                    f"{split.name}: an image has {split.counts.most} objects, but the model finds at most "
                    f"{self.queries}, the number of its queries; 99 % of the images have at most "
                    f"{split.counts.nearly_all:g}"
                )
            if not split.counts.objects:
                found.append(f"{split.name}: there are no objects: {split.counts.nothing_because()}")
        return found
