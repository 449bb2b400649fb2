"""From which score on detections of a class are best shown: where F1 is largest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BestThreshold:
    """The score threshold with the largest F1.

    Attributes:
        threshold: in [0, 1]; detections of at least this score count.
        f1: in [0, 1], at an IoU of 0.5.
    """

    threshold: float
    f1: float


def best_threshold(scores: np.ndarray, right: np.ndarray, objects: int) -> BestThreshold | None:
    """The threshold with the largest F1, in the middle between two scores; of equal ones the highest.

    Args:
        scores: (N,) of all detections of a class.
        right: (N,) bool, whether a detection matches an object.
        objects: how many objects there are.

    Returns:
        None where that says nothing: there are no objects, or no detection matches one.
    """
    if objects == 0 or not right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    last = np.append(scores[1:] < scores[:-1], True)  # of those with its score: they come together
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(scores) + 1) + objects)  # 2 TP / (TP + FP + objects)
    best = int(np.argmax(np.where(last, f1, -1.0)))
    below = scores[best + 1] if best + 1 < len(scores) else scores[best]
    return BestThreshold(float((scores[best] + below) / 2), float(f1[best]))
