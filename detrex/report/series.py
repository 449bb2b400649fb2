"""The curves of a run."""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from detrex.evaluation.report import MAIN_METRICS
from detrex.report.curves import COLORS, Chart, Point, Series

logger = logging.getLogger(__name__)

Curves = dict[str, list[Point]]

_TIMES = ("step_time", "data_time")
_NOT_LOSSES = ("iteration", "loss", "lr", "grad_norm", *_TIMES)


def read_curves(path: Path) -> Curves:
    """All metrics in a run's ``metrics.jsonl`` by name; empty if there is no such file."""
    curves: Curves = defaultdict(list)
    if not path.is_file():
        return {}
    broken = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            metrics = json.loads(line)
            iteration = metrics.pop("iteration")
            for name, value in metrics.items():
                curves[name].append((iteration, math.nan if value is None else float(value)))
        except (ValueError, TypeError, KeyError, AttributeError):
            broken += 1
    if broken:
        logger.warning("%s: %d lines are damaged and left out", path, broken)
    return dict(curves)


def main_names(names: Iterable[str]) -> list[str]:
    """Only the names of the final layer: ``loss_ce``, but not ``loss_ce_0`` and ``loss_ce_dn``."""
    names = list(names)
    return [n for n in names if not any(n.startswith(f"{other}_") for other in names)]


def training_charts(curves: Curves) -> list[Chart]:
    """Charts of the loss and its parts, in training and, if measured, in validation."""
    parts = main_names(n for n in curves if "/" not in n and n not in _NOT_LOSSES and not n.endswith("_mb"))
    return _drawable(
        Chart(
            name,
            _lines(
                curves,
                {
                    "training": name,
                    "validation": f"val/{name}",
                    "validation of the average": f"ema/val/{name}",
                },
            ),
        )
        for name in ["loss", *parts]
    )


def evaluation_charts(curves: Curves) -> tuple[list[Chart], list[Chart]]:
    """Metrics of evaluations, also of averaged weights: the main ones and the others."""
    names = dict.fromkeys(n.removeprefix("ema/") for n in curves if "/" in n)
    main: list[Chart] = []
    others: list[Chart] = []
    for name in names:
        if name.startswith(("val/", "lr/", "grad_norm/")):
            continue
        lines = _lines(curves, {"weights": name, "average": f"ema/{name}"})
        (main if name in MAIN_METRICS else others).append(Chart(MAIN_METRICS.get(name, name), lines))
    # A model that has none of the main metrics shows all of its own in their place.
    main, others = (main, others) if main else (others, [])
    return _drawable(main), _drawable(others)


def optimizer_charts(curves: Curves) -> list[Chart]:
    """Learning rates, gradient norms, seconds and memory."""
    rates = {n.removeprefix("lr/"): n for n in curves if n.startswith("lr/")}
    rates = rates if len({tuple(curves[n]) for n in rates.values()}) > 1 else {"all": "lr"}
    norms = {n.removeprefix("grad_norm/"): n for n in curves if n.startswith("grad_norm/")}
    memory = {n.removesuffix("_memory_mb"): n for n in curves if n.endswith("_memory_mb")}
    return _drawable(
        [
            Chart("learning rate", _lines(curves, rates)),
            Chart("gradient norm", _lines(curves, {"all": "grad_norm", **norms}), logarithmic=True),
            Chart("seconds per iteration", _lines(curves, {"all": _TIMES[0], "waiting for data": _TIMES[1]})),
            Chart(f"MiB of memory ({', '.join(memory)})", _lines(curves, memory)),
        ]
    )


def _lines(curves: Curves, names: dict[str, str]) -> list[Series]:
    there = [(label, name) for label, name in names.items() if name in curves]
    return [Series(label, curves[name]) for label, name in there[:COLORS]]


def _drawable(charts: Iterable[Chart]) -> list[Chart]:
    return [chart for chart in charts if not chart.is_empty]
