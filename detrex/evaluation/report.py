"""Metrics as Markdown tables (plain ASCII, suitable for any log) and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from detrex.evaluation.thresholds import BestThreshold
from detrex.runtime.tables import markdown_table
from detrex.structures import Categories

PerClass = dict[str, dict[str, float]]
"""For each metric, such as ``"segm/AP"``, its value for every class name."""


def class_labels(categories: Categories) -> list[str]:
    """A distinct label for every class: its name, with its id if several classes have that name."""
    return [
        name if categories.names.count(name) == 1 else f"{name} ({category_id})"
        for name, category_id in zip(categories.names, categories.ids, strict=True)
    ]


# The main metric of each task, by which results are compared.
MAIN_METRICS = {
    "bbox/AP": "box AP",
    "segm/AP": "mask AP",
    "panoptic/PQ": "PQ",
    "semantic/mIoU": "mIoU",
    "track/HOTA": "HOTA",
}


def metric_tables(
    metrics: Mapping[str, float],
) -> list[tuple[tuple[str, ...], list[tuple[str, list[float]]]]]:
    """Metrics named ``task/metric`` as tables: columns, and a row of values for each task with them."""
    tasks: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        task, _, metric = name.rpartition("/")
        tasks.setdefault(task, {})[metric] = value
    blocks: dict[tuple[str, ...], list[tuple[str, list[float]]]] = {}
    for task, values in tasks.items():
        blocks.setdefault(tuple(values), []).append((task, list(values.values())))
    return list(blocks.items())


def format_table(metrics: Mapping[str, float]) -> str:
    """A Markdown table of metrics named ``task/metric``: one row per task, one table per set of columns.

    Metrics that are not a number (nothing to measure) show as ``-``.
    """
    return "\n\n".join(_render(columns, rows) for columns, rows in metric_tables(metrics))


def format_summary(metrics: Mapping[str, float]) -> str:
    """A Markdown table of one row: box AP, mask AP, PQ and mIoU, as far as they were measured."""
    main = {title: metrics[name] for name, title in MAIN_METRICS.items() if name in metrics}
    return _render(tuple(main), [("", main.values())]) if main else "no metrics"


def per_class_rows(per_class: Mapping[str, Mapping[str, float]]) -> list[tuple[str, list[float]]]:
    """The name of every class and its value of every metric, NaN if there is no value."""
    classes = dict.fromkeys(name for values in per_class.values() for name in values)
    return [(name, [v.get(name, math.nan) for v in per_class.values()]) for name in classes]


def format_per_class(per_class: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table with one row per class and one column per metric."""
    return _render(tuple(per_class), per_class_rows(per_class))


def classes_measured(per_class: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[int, int]]:
    """For every metric, the number of classes in its mean, and the number of all classes.

    Classes that occur neither in ground truth nor in results are not measured.
    """
    return {
        name: (sum(map(math.isfinite, values.values())), len(values)) for name, values in per_class.items()
    }


def format_classes(per_class: Mapping[str, Mapping[str, float]]) -> str:
    """The result of :func:`classes_measured` as a sentence; empty if there are no metrics per class."""
    measured = classes_measured(per_class).items()
    counts = ", ".join(f"{name} over {count} of {total} classes" for name, (count, total) in measured)
    return f"means were taken of {counts}" if counts else ""


def write_results(
    path: str | Path,
    metrics: Mapping[str, float],
    per_class: PerClass | None = None,
    thresholds: Mapping[int, BestThreshold] | None = None,
) -> None:
    """Writes ``{"metrics": ..., "per_class": ...}`` as JSON; metrics that are not finite become ``null``.

    Args:
        path: of the file.
        metrics: by name.
        per_class: metrics by class.
        thresholds: score thresholds with the best F1, and for precisions, by category id.
    """
    measured = classes_measured(per_class or {})
    best = {
        i: {"threshold": t.threshold, "f1": t.f1, "for_precision": _by_text(t.for_precision)}
        for i, t in (thresholds or {}).items()
    }
    content = {
        "metrics": _finite(metrics),
        "per_class": {name: _finite(values) for name, values in (per_class or {}).items()},
        "classes_measured": {name: list(counts) for name, counts in measured.items()},
        "score_thresholds": best,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _by_text(values: Mapping[float, float]) -> dict[str, float]:
    return {str(key): value for key, value in values.items()}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(v) if math.isfinite(v) else None for name, v in values.items()}


def _render(columns: tuple[str, ...], rows: Iterable[tuple[str, Iterable[float]]]) -> str:
    cells = ((title, [f"{v:.2f}" if math.isfinite(v) else "-" for v in values]) for title, values in rows)
    return markdown_table(columns, cells)
