"""Decides which detections are right, which are wrong and why, and which objects were missed.

Errors are those of TIDE (arXiv 2008.08115). Shape letters: N detections and M objects of one image.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Error = Literal["localisation", "classification", "duplicate", "background", "both", "missed"]

ERRORS: tuple[Error, ...] = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""Kinds of errors: wrong class, wrong place, both wrong; an object that was found already; no object at all;
and objects that were not found."""

FOREGROUND, BACKGROUND = 0.5, 0.1
"""A detection with at least the first IoU is on the object, with less than the second on none."""


class ImageObjects(NamedTuple):
    """The objects of one image.

    Attributes:
        classes: (M,) int, class indices.
        is_crowd: (M,) bool.
    """

    classes: np.ndarray
    is_crowd: np.ndarray


class ImageDetections(NamedTuple):
    """The detections of one image, by descending score.

    Attributes:
        classes: (N,) int, class indices.
        scores: (N,) float.
    """

    classes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class ImageMatches:
    """The matches between detections and objects of one image.

    Attributes:
        image_id: of the image.
        scores: (N,) float.
        classes: (N,) int.
        right: (N,) bool, whether the detection found an object of its class.
        ignored: (N,) bool, whether it found only a crowd, and does not count.
        errors: (N,) int, index in :data:`ERRORS`; -1 for detections that are right or ignored.
        objects: (N,) int, the object that a detection found or that the error is about; -1 for none.
        object_classes: (M,) int.
        is_crowd: (M,) bool.
        found: (M,) bool, whether the object was found.
        missed: (M,) bool, whether it was not found, and no error of class or place explains that.
    """

    image_id: Hashable
    scores: np.ndarray
    classes: np.ndarray
    right: np.ndarray
    ignored: np.ndarray
    errors: np.ndarray
    objects: np.ndarray
    object_classes: np.ndarray
    is_crowd: np.ndarray
    found: np.ndarray
    missed: np.ndarray


def match(
    image_id: Hashable, detections: ImageDetections, objects: ImageObjects, iou: np.ndarray
) -> ImageMatches:
    """Matches the detections of one image with its objects, as COCO does at an IoU of 0.5.

    By descending score, each detection takes the free object of its class with the largest IoU. The remaining
    detections are classified as in TIDE: the place is wrong, else the class is wrong, else a duplicate, else
    background, else class and place are wrong.

    Args:
        image_id: of the image.
        detections: by descending score.
        objects: including crowds.
        iou: (N, M); for crowds, the share of the detection that lies inside.
    """
    count = len(detections.scores)
    same = detections.classes[:, None] == objects.classes[None]  # (N, M)
    single = ~objects.is_crowd
    owner = np.full(count, -1)
    found = np.zeros(len(objects.classes), bool)
    candidates = np.where(same & single & (iou >= FOREGROUND), iou, 0.0)
    for k in np.flatnonzero(candidates.any(1)).tolist():
        free = np.where(found, 0.0, candidates[k])
        best = int(free.argmax())
        if free[best] > 0:
            owner[k], found[best] = best, True
    right = owner >= 0
    in_crowd = (same & ~single & (iou >= FOREGROUND)).any(1)
    ignored = in_crowd & ~right
    errors = np.full(count, -1)
    wrong = np.flatnonzero(~right & ~ignored)
    if len(wrong):
        errors[wrong], owner[wrong] = _errors(iou[wrong], same[wrong], single)
    explained = np.zeros(len(found), bool)
    about = np.isin(errors, [ERRORS.index("classification"), ERRORS.index("localisation")])
    explained[owner[about]] = True
    missed = single & ~found & ~explained
    return ImageMatches(
        image_id, detections.scores, detections.classes, right, ignored, errors, owner,
        objects.classes, objects.is_crowd, found, missed,
    )  # fmt: skip


def _errors(iou: np.ndarray, same: np.ndarray, single: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kind of error, and the object that it is about, of each wrong detection."""
    if not iou.shape[1] or not single.any():
        return np.full(len(iou), ERRORS.index("background")), np.full(len(iou), -1)
    same_class, other_class = np.where(same & single, iou, 0.0), np.where(~same & single, iou, 0.0)
    any_class = np.where(single, iou, 0.0)
    best_same, best_other, best = same_class.max(1), other_class.max(1), any_class.max(1)
    tests: Sequence[tuple[Error, np.ndarray, np.ndarray]] = (
        ("localisation", (best_same >= BACKGROUND) & (best_same < FOREGROUND), same_class),
        ("classification", best_other >= FOREGROUND, other_class),
        ("duplicate", best_same >= FOREGROUND, same_class),
        ("background", best < BACKGROUND, any_class),
        ("both", best >= BACKGROUND, any_class),
    )
    kinds = np.select([test for _, test, _ in tests], [ERRORS.index(name) for name, _, _ in tests])
    about = np.select([test for _, test, _ in tests], [values.argmax(1) for _, _, values in tests])
    return kinds, np.where(kinds == ERRORS.index("background"), -1, about)
