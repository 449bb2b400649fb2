"""Settings that fit a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.cluster.vq import kmeans2

from detrex.data.check.annotations import SplitFacts

_ANCHORS = 9
_SAMPLED = 20_000  # boxes that anchors are computed from
_SEEN = 8.0  # pixels that the shorter side of nearly all objects should have at the model's size
_SIZES = (320, 384, 512, 640, 800, 1024, 1280, 1536)


def advise(splits: Sequence[SplitFacts]) -> dict[str, str]:
    """Settings by name, with their reasons, from the first split, on which to train.

    - ``num_queries``: 1.5 times the largest number of objects in an image, at least 100, in steps of 50.
    - ``image_size``: the longer side in pixels at which nine of ten objects have a shorter side of at least 8
      pixels; not larger than nearly all images.
    - ``anchors``: widths and heights in pixels at that size, by k-means of the boxes.
    """
    facts = next((f for f in splits if len(f.files)), None)
    if facts is None or not len(facts.objects):
        return {}
    most, nearly_all = int(facts.objects.max()), float(np.percentile(facts.objects, 99))
    queries = max(100, 50 * math.ceil(1.5 * most / 50))
    reason = f"an image has at most {most} objects, 99 % of them {nearly_all:g} or fewer"
    advice = {"num_queries": f"{queries} ({reason})"}
    longer = facts.sizes.max(1).astype(float)
    usual = float(np.percentile(longer, 90))
    if not len(facts.sides):
        size = _at_least(min(usual, _SIZES[-1]))
        return {**advice, "image_size": f"{size} (images have a longer side of {np.median(longer):g} pixels)"}
    shorter = np.maximum(facts.sides.min(1), 1.0) / longer[facts.sides_of]  # as shares of the longer side
    low = float(np.percentile(shorter, 10))
    size = _at_least(min(_SEEN / low, usual))
    advice["image_size"] = (
        f"{size} (nine of ten objects have a shorter side of at least {low * size:.1f} pixels there; "
        f"images have a "
        f"longer side of {np.median(longer):g})"
    )
    sides = facts.sides / longer[facts.sides_of, None] * size
    return {**advice, "anchors": ", ".join(f"{w:.0f} x {h:.0f}" for w, h in anchors(sides))}


def anchors(sides: np.ndarray, count: int = _ANCHORS) -> np.ndarray:
    """Anchors (K, 2), widths and heights by area, from k-means over the logarithms of ``sides`` (N, 2)."""
    rng = np.random.default_rng(0)
    if len(sides) > _SAMPLED:
        sides = sides[rng.choice(len(sides), _SAMPLED, replace=False)]
    logs = np.log(np.maximum(sides.astype(float), 0.5))
    distinct = len(np.unique(logs, axis=0))
    centres, _ = kmeans2(logs, min(count, distinct), minit="++", seed=rng, missing="warn")
    found = np.exp(centres)
    return found[np.argsort(found.prod(1))]


def _at_least(size: float) -> int:
    return next((s for s in _SIZES if s >= size), _SIZES[-1])
