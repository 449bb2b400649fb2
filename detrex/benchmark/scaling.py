"""Measures how time and memory grow with objects, queries, image sides, classes and batch size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detrex.benchmark.model import Setup
from detrex.benchmark.worker import measure_models


@dataclass(frozen=True)
class Axis:
    """A quantity that grows.

    Attributes:
        meaning: in words.
        values: ascending.
        training: whether training steps are measured; otherwise inference.
        key: of the config that takes the value; empty if a :class:`Setup` has it.
    """

    meaning: str
    values: tuple[int, ...]
    training: bool
    key: str = ""

    def setup(self, base: Setup, name: str, value: int) -> Setup:
        """``base`` with one value on this axis."""
        changed = replace(base, training=self.training)
        if self.key:
            return replace(changed, overrides=(*base.overrides, f"{self.key}={value}"))
        changes: dict[str, Any] = {name: (value, value) if name == "size" else value}
        return replace(changed, **changes)


AXES: Mapping[str, Axis] = {
    "objects": Axis("objects in an image", (1, 3, 10, 30, 100, 300, 1000), training=True),
    "queries": Axis("queries", (30, 100, 300, 900), False, "model.decoder.query_init.num_queries"),
    "size": Axis("image side in pixels", (256, 512, 1024, 2048, 4096), training=False),
    "classes": Axis("classes", (1, 10, 80, 300, 1203), training=True, key="model.num_classes"),
    "batch": Axis("images of a batch", (1, 2, 4, 8), training=True),
}

GROWING = ("processor_seconds", "memory")
"""Measurements for which exponents are computed."""


def measure_scaling(
    base: Setup, axes: Mapping[str, Sequence[int]], repeats: int = 3, warmup: int = 1
) -> Iterator[dict[str, Any]]:
    """Measures a model at one value after another, each in a separate process.

    Args:
        base: the settings that do not grow.
        axes: names of :data:`AXES`, with the values of each in ascending order.
        repeats, warmup: number of runs that count, and number of runs before them.

    Yields:
        For JSON, an entry for each axis: ``points`` with ``value``, ``seconds``, ``processor_seconds`` and
        ``memory`` (bytes that the runs took beyond the model), the ``exponents`` of processor time and memory
        between neighbouring values, the ``bends`` of both (see :func:`bend`), and ``stopped``: the reason why
        larger values were left out, or empty.
    """
    for name, values in axes.items():
        axis, points, stopped = AXES[name], [], ""
        for value in values:
            try:
                result = measure_models({"model": axis.setup(base, name, value)}, repeats, warmup)
            except (ChildProcessError, MemoryError, RuntimeError) as error:
                # Most likely, memory is short; larger values would need more.
                stopped = f"{value}: {str(error).splitlines()[0]}"
                break
            model = result["models"]["model"]
            points.append(
                {
                    "value": value,
                    "seconds": model["seconds"]["median"],
                    "processor_seconds": model["processor_seconds"]["median"],
                    "memory": max(model["peak_memory"] - model["memory_before"], 0),
                }
            )
        yield {
            "axis": name,
            "meaning": axis.meaning,
            "mode": "training" if axis.training else "inference",
            "points": points,
            "exponents": {key: exponents(points, key) for key in GROWING},
            "bends": {key: bend(points, key) for key in GROWING},
            "stopped": stopped,
        }


def exponents(points: Sequence[Mapping[str, float]], key: str) -> list[float]:
    """Exponents of the value with which a result grows between neighbouring points; NaN for results of 0.

    Args:
        points: with ``value`` and ``key``.
        key: of the measured quantity.
    """
    pairs = zip(points, points[1:], strict=False)
    return [
        math.log(b[key] / a[key]) / math.log(b["value"] / a["value"]) if a[key] and b[key] else math.nan
        for a, b in pairs
    ]


def bend(points: Sequence[Mapping[str, float]], key: str) -> float | None:
    """The value from which on the measured quantity grows with more than half of its highest exponent.

    Below that value, the costs that do not depend on it prevail. None if no exponent reaches a third.
    """
    grown = exponents(points, key)
    highest = max((e for e in grown if math.isfinite(e)), default=0.0)
    if highest < 1 / 3:
        return None
    return next(p["value"] for p, e in zip(points, grown, strict=False) if e > highest / 2)
