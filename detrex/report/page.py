"""``report.html``: the settings, curves and results of a run."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from detrex.data.census import Census
from detrex.evaluation import PerClass
from detrex.evaluation.analysis import DetectionAnalysis
from detrex.evaluation.report import MAIN_METRICS, format_classes, metric_tables, per_class_rows
from detrex.report.curves import Chart, render
from detrex.report.detection import confusion_table, detection_sections
from detrex.report.html import document, folded, inline_picture, text_table
from detrex.report.pictures import RatedImage
from detrex.report.series import (
    Curves,
    evaluation_charts,
    optimizer_charts,
    read_curves,
    training_charts,
)
from detrex.runtime.files import replaced_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResults:
    """The results of an evaluation.

    Attributes:
        metrics: by name.
        per_class: metrics per class.
        best, worst: images with the best and the worst results.
        analysis: explains the AP; or None.
        error_pictures: by kind of error, HTML images of examples.
        confusion: for semantic segmentation, (C, C) pixels by true and found class, and C names; or None.
    """

    metrics: Mapping[str, float]
    per_class: PerClass
    best: Sequence[RatedImage]
    worst: Sequence[RatedImage]
    analysis: DetectionAnalysis | None = None
    error_pictures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    confusion: tuple[np.ndarray, Sequence[str]] | None = None


def save_report(
    path: Path,
    metrics_file: Path,
    config: str,
    environment: str,
    results: RunResults | None,
    census: Census | None = None,
) -> None:
    """Writes the page.

    Args:
        path: of the page; its folder's name is the title.
        metrics_file: one JSON object per line, from which the curves are drawn; need not exist.
        config: as YAML.
        environment: versions and the like, as lines of ``name: value``.
        results: of the evaluation at the end, or None if nothing was evaluated.
        census: the content of the data sets, or None if it is not known.
    """
    title = path.resolve().parent.name
    metrics = {} if results is None else results.metrics
    curves = read_curves(metrics_file)
    sections = [_head(title, metrics, curves), _curves(curves)]
    if results is not None:
        sections += [_results(metrics, results.per_class)]
        if results.analysis is not None:
            sections += [detection_sections(results.analysis, results.error_pictures)]
        if results.confusion is not None:
            sections += [f"<h2>Confusion of pixels</h2>{confusion_table(*results.confusion)}"]
        sections += [_extremes(results.best, results.worst)]
    if census is not None:
        sections += [_data(census)]
    sections += [_settings(config, environment)]
    with replaced_file(path) as temporary:
        temporary.write_text(document(title, sections), encoding="utf-8")
    logger.info("wrote %s", path)


def _head(name: str, metrics: Mapping[str, float], curves: Curves) -> str:
    done = max((int(points[-1][0]) for points in curves.values()), default=0)
    tiles = {MAIN_METRICS[n]: f"{metrics[n]:.1f}" for n in MAIN_METRICS if n in metrics}
    if "loss" in curves:
        tiles = {**tiles, "loss": f"{curves['loss'][-1][1]:.3g}", "iterations": f"{done}"}
    shown = "".join(f"<div class=tile><b>{v}</b><span>{escape(k)}</span></div>" for k, v in tiles.items())
    return f"<h1>{escape(name)}</h1><div class=tiles>{shown}</div>"


def _curves(curves: Curves) -> str:
    main, others = evaluation_charts(curves)
    return (
        _charts("Evaluation", main)
        + folded("More metrics of evaluations", _grid(others) if others else "")
        + _charts("Losses", training_charts(curves))
        + _charts("Optimization", optimizer_charts(curves))
    )


def _charts(title: str, charts: Sequence[Chart]) -> str:
    return f"<h2>{title}</h2>{_grid(charts)}" if charts else ""


def _grid(charts: Sequence[Chart]) -> str:
    return f"<div class=charts>{''.join(render(chart) for chart in charts)}</div>\n"


def _results(metrics: Mapping[str, float], per_class: PerClass) -> str:
    tables = "".join(_table(columns, rows) for columns, rows in metric_tables(metrics))
    by_class = _table(tuple(per_class), per_class_rows(per_class), "bars") if per_class else ""
    classes = f"<p>{escape(format_classes(per_class))}</p>" if per_class else ""
    folded = f"<h2>Results per class</h2>{by_class}" if by_class else ""
    return f"<h2>Results</h2>{tables}{classes}{folded}"


def _data(census: Census) -> str:
    tables = (text_table(census.columns, rows) for rows in (census.overview(), census.classes()))
    overview, classes = tables
    warnings = "".join(f"<p>{escape(warning)}</p>" for warning in census.warnings())
    return f"<h2>Data</h2>{overview}{warnings}{folded('Objects per class', classes)}"


def _table(columns: Sequence[str], rows: Iterable[tuple[str, Iterable[float]]], kind: str = "") -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in ("", *columns))
    body = "".join(f"<tr><td>{escape(title)}</td>{_cells(values)}</tr>" for title, values in rows)
    return f"<div class=scroll><table class='{kind}'><tr>{head}</tr>{body}</table></div>\n"


def _cells(values: Iterable[float]) -> str:
    return "".join(
        f"<td style='--v:{min(max(v, 0), 100):.1f}'>{v:.2f}</td>" if math.isfinite(v) else "<td>-</td>"
        for v in values
    )


def _extremes(best: Sequence[RatedImage], worst: Sequence[RatedImage]) -> str:
    parts = [("Best images", "best", best), ("Worst images", "worst", worst)]
    return "".join(
        f"<h2>{title}</h2>{''.join(_picture(image, kind) for image in images)}"
        for title, kind, images in parts
        if images
    )


def _picture(image: RatedImage, kind: str) -> str:
    return (
        f"<figure class='shown {kind}'><figcaption><b>{escape(image.rating.text)}</b>{escape(image.name)}"
        f"</figcaption><img alt='' src='{inline_picture(image.picture)}'></figure>\n"
    )


def _settings(config: str, environment: str) -> str:
    rows = [line.partition(": ") for line in environment.splitlines()]
    cells = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, _, v in rows)
    return (
        "<h2>Settings</h2>"
        + folded("Config", f"<pre>{escape(config)}</pre>")
        + folded("Environment", f"<div class=scroll><table class=plain>{cells}</table></div>")
    )
