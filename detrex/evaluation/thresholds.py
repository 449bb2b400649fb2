"""Score thresholds of classes: with the largest F1, or with a wanted precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

PRECISIONS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)
"""Precisions for which thresholds are stored; see :attr:`BestThreshold.for_precision`."""


@dataclass(frozen=True)
class BestThreshold:
    """The score threshold with the largest F1.

    Attributes:
        threshold: in [0, 1]; detections with at least this score count.
        f1: in [0, 1], at an IoU of 0.5.
        for_precision: for each of :data:`PRECISIONS`, the lowest score threshold with at least that precision
            at an IoU of 0.5; precisions that no threshold reaches are missing.
    """

    threshold: float
    f1: float
    for_precision: Mapping[float, float] = field(default_factory=dict)


def best_threshold(scores: np.ndarray, right: np.ndarray, objects: int) -> BestThreshold | None:
    """The threshold with the largest F1, in the middle between two scores; the highest of equal ones.

    Args:
        scores: (N,) of all detections of a class.
        right: (N,) bool, whether a detection matches an object.
        objects: number of objects.

    Returns:
        The threshold, or None if there are no objects or no detection matches one.
    """
    if objects == 0 or not right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    last = np.append(scores[1:] < scores[:-1], True)  # last of equal scores, which stay together
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(scores) + 1) + objects)  # 2 TP / (TP + FP + objects)
    best = int(np.argmax(np.where(last, f1, -1.0)))
    precision = np.where(last, np.cumsum(right) / np.arange(1, len(scores) + 1), -1.0)
    enough = {wanted: np.flatnonzero(precision >= wanted) for wanted in PRECISIONS}
    for_precision = {p: _between(scores, int(places[-1])) for p, places in enough.items() if len(places)}
    return BestThreshold(_between(scores, best), float(f1[best]), for_precision)


def _between(scores: np.ndarray, last: int) -> float:
    """The middle between the score of the last detection that counts and the next lower score."""
    below = scores[last + 1] if last + 1 < len(scores) else scores[last]
    return float((scores[last] + below) / 2)
