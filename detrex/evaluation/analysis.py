"""Explains an average precision: errors by kind, precision and recall, calibration, confusion.

Shape letters: C classes, K detections of all images, R points of recall.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from detrex.evaluation.matching import ERRORS, ImageMatches
from detrex.evaluation.thresholds import BestThreshold, best_threshold

RECALLS = np.linspace(0, 1, 101)
"""Points of recall at which COCO measures precision."""

_BINS = 10
_EXAMPLES = 6
_CONFUSED = 0.3  # detections with at least this score count in the confusion matrix


class Place(NamedTuple):
    """Box and mask of a detection or an object.

    Attributes:
        box: absolute xyxy in pixels.
        mask: pycocotools' RLE; None if boxes are evaluated.
    """

    box: tuple[float, ...]
    mask: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ErrorExample:
    """One error.

    Attributes:
        kind: one of :data:`detrex.evaluation.matching.ERRORS`.
        image_id: of the image.
        class_index: of the detection or the missed object.
        score: of the detection; NaN for a missed object.
        place: of the detection or the missed object.
        object_class: of the object that the error is about; -1 for no object.
        object_place: of that object; None for no object.
    """

    kind: str
    image_id: Hashable
    class_index: int
    score: float
    place: Place
    object_class: int = -1
    object_place: Place | None = None


@dataclass(frozen=True)
class CalibrationBin:
    """Detections of similar scores.

    Attributes:
        score: mean score.
        precision: share of right detections.
        count: number of detections.
    """

    score: float
    precision: float
    count: int


@dataclass(frozen=True)
class DetectionAnalysis:
    """Explains the AP of a task, at an IoU of 0.5.

    Attributes:
        task: ``"bbox"`` or ``"segm"``.
        class_names: C names.
        precision: (C, R) at :data:`RECALLS`, NaN for classes without objects.
        calibration: detections by score.
        calibration_error: mean distance of score and precision, weighted by the number of detections.
        confusion: (C + 1, C + 1) int64, detections with a score of at least 0.3 by true class (rows) and
            found class (columns); the last row and column mean no class.
        counts: number of errors of each kind.
        lost: AP50 in percent that each kind of error costs: how much higher it would be without these errors.
        thresholds: for each class, the score from which on its detections are best shown; None if that cannot
            be determined.
        examples: errors with high scores.
    """

    task: str
    class_names: Sequence[str]
    precision: np.ndarray
    calibration: Sequence[CalibrationBin]
    calibration_error: float
    confusion: np.ndarray
    counts: dict[str, int]
    lost: dict[str, float]
    thresholds: Sequence[BestThreshold | None]
    examples: list[ErrorExample] = field(default_factory=list)


class DetectionCounts:
    """The matches of all images, in arrays.

    Args:
        matches: of the images.
        num_classes: C.
    """

    def __init__(self, matches: Iterable[ImageMatches], num_classes: int):
        self.matches, self.num_classes = list(matches), num_classes
        images = self.matches
        self.scores = _joined([m.scores for m in images], float)  # (K,)
        self.classes = _joined([m.classes for m in images], int)
        self.right = _joined([m.right for m in images], bool)
        self.ignored = _joined([m.ignored for m in images], bool)
        self.errors = _joined([m.errors for m in images], int)
        sizes = [len(m.object_classes) for m in images]
        starts = np.concatenate([[0], np.cumsum(sizes)])[:-1] if sizes else np.zeros(0, int)
        placed = [np.where(m.objects >= 0, m.objects + s, -1) for m, s in zip(images, starts, strict=True)]
        self.objects = _joined(placed, int)  # (K,) index among the objects of all images
        self.object_classes = _joined([m.object_classes for m in images], int)
        self.is_crowd = _joined([m.is_crowd for m in images], bool)
        self.found = _joined([m.found for m in images], bool)
        self.missed = _joined([m.missed for m in images], bool)
        self.per_class = np.bincount(self.object_classes[~self.is_crowd], minlength=num_classes)

    def ap(
        self, classes: np.ndarray, right: np.ndarray, counted: np.ndarray, objects: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """AP50 in percent over classes with objects, and (C, R) precision.

        Args:
            classes: (K,) of the detections.
            right: (K,) bool.
            counted: (K,) bool, whether the detection counts.
            objects: (C,) number of objects of each class.
        """
        precision = np.full((self.num_classes, len(RECALLS)), np.nan)
        chosen = np.flatnonzero(counted)
        chosen = chosen[np.argsort(classes[chosen], kind="stable")]
        bounds = np.searchsorted(classes[chosen], np.arange(self.num_classes + 1))
        for k in np.flatnonzero(objects).tolist():
            of_class = chosen[bounds[k] : bounds[k + 1]]
            precision[k] = interpolated(self.scores[of_class], right[of_class], int(objects[k]))
        present = objects > 0
        return (100 * float(precision[present].mean()) if present.any() else float("nan")), precision

    def best_thresholds(self) -> list[BestThreshold | None]:
        """The score threshold of each class with the largest F1."""
        chosen = [~self.ignored & (self.classes == k) for k in range(self.num_classes)]
        return [
            best_threshold(self.scores[of_class], self.right[of_class], int(objects))
            for of_class, objects in zip(chosen, self.per_class, strict=True)
        ]

    def lost_to(self, error: str) -> float:
        """AP50 in percent that one kind of error costs."""
        every = ~self.ignored
        before, _ = self.ap(self.classes, self.right, every, self.per_class)
        if error == "missed":
            without = self.per_class - np.bincount(
                self.object_classes[self.missed], minlength=self.num_classes
            )
            # A class without remaining objects has no AP; none of its objects had been found.
            after, _ = self.ap(self.classes, self.right, every, without)
            return after - before
        concerned = self.errors == ERRORS.index(error)
        if error not in ("classification", "localisation"):
            after, _ = self.ap(self.classes, self.right, every & ~concerned, self.per_class)
            return after - before
        # Among the class and localisation errors about an object that nothing found, the best becomes right.
        kinds = [ERRORS.index(name) for name in ("classification", "localisation")]
        about = np.flatnonzero(np.isin(self.errors, kinds))
        order = about[np.argsort(-self.scores[about], kind="stable")]
        _, first = np.unique(self.objects[order], return_index=True)
        best = order[first]
        corrected = np.zeros(len(self.scores), bool)
        corrected[best[~self.found[self.objects[best]]]] = True
        corrected &= concerned
        classes = self.classes.copy()
        classes[corrected] = self.object_classes[self.objects[corrected]]
        after, _ = self.ap(classes, self.right | corrected, every & (~concerned | corrected), self.per_class)
        return after - before


def analyse(
    task: str, class_names: Sequence[str], matches: Iterable[ImageMatches], examples: list[ErrorExample]
) -> DetectionAnalysis:
    """Analyses the matches of all images together.

    Args:
        task: ``"bbox"`` or ``"segm"``.
        class_names: C names.
        matches: of the images.
        examples: errors, of which the best examples are kept.
    """
    counts = DetectionCounts(matches, len(class_names))
    _, precision = counts.ap(counts.classes, counts.right, ~counts.ignored, counts.per_class)
    bins = calibration(counts.scores[~counts.ignored], counts.right[~counts.ignored])
    total = sum(b.count for b in bins)
    error = sum(b.count * abs(b.score - b.precision) for b in bins) / total if total else float("nan")
    numbers: dict[str, int] = {name: int((counts.errors == k).sum()) for k, name in enumerate(ERRORS)}
    numbers["missed"] = int(counts.missed.sum())
    return DetectionAnalysis(
        task,
        class_names,
        precision,
        bins,
        error,
        confusion(counts),
        numbers,
        {name: counts.lost_to(name) for name in ERRORS},
        counts.best_thresholds(),
        best_examples(examples),
    )


def interpolated(scores: np.ndarray, right: np.ndarray, objects: int) -> np.ndarray:
    """Precision (R,) at :data:`RECALLS`, the highest at that recall or a higher one, as in COCO.

    Args:
        scores: (K,) of the detections.
        right: (K,) bool.
        objects: number of objects.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    recall = hits / objects
    precision = hits / np.arange(1, len(hits) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return np.concatenate([highest, [0.0]])[np.minimum(places, len(highest))]


def calibration(scores: np.ndarray, right: np.ndarray) -> list[CalibrationBin]:
    """Detections in ten bins of equal width by score; empty bins are left out."""
    place = np.clip((scores * _BINS).astype(int), 0, _BINS - 1)
    return [
        CalibrationBin(
            float(scores[place == k].mean()), float(right[place == k].mean()), int((place == k).sum())
        )
        for k in range(_BINS)
        if (place == k).any()
    ]


def confusion(counts: DetectionCounts) -> np.ndarray:
    """The confusion matrix (C + 1, C + 1), see :class:`DetectionAnalysis`."""
    none = counts.num_classes
    matrix = np.zeros((none + 1, none + 1), np.int64)
    sure = (counts.scores >= _CONFUSED) & ~counts.ignored
    is_wrong_class = counts.errors == ERRORS.index("classification")
    on_object = sure & (counts.right | is_wrong_class)
    np.add.at(matrix, (counts.object_classes[counts.objects[on_object]], counts.classes[on_object]), 1)
    np.add.at(matrix, (none, counts.classes[sure & ~on_object]), 1)
    touched = np.zeros(len(counts.object_classes), bool)
    touched[counts.objects[on_object]] = True
    lost = np.bincount(counts.object_classes[~touched & ~counts.is_crowd], minlength=none)
    matrix[:none, none] = lost
    return matrix


def best_examples(examples: Sequence[ErrorExample]) -> list[ErrorExample]:
    """A few examples of each kind: those with the highest scores, and the largest missed objects."""
    kept = []
    for kind in ERRORS:
        of_kind = [example for example in examples if example.kind == kind]
        of_kind.sort(key=lambda e: _area(e.place.box) if kind == "missed" else e.score, reverse=True)
        kept += of_kind[:_EXAMPLES]
    return kept


def _area(box: tuple[float, ...]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _joined(parts: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, kind)
