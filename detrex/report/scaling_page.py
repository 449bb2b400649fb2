"""The page with curves of time and memory over growing inputs, on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from detrex.report.curves import Chart, Series, picture, render
from detrex.report.html import document, text_table
from detrex.runtime.files import replaced_file

_MEBIBYTE = 2**20


def save_scaling_page(
    path: Path, title: str, machine: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]
) -> None:
    """Writes the page.

    Args:
        path: of the page.
        title: name of what was measured.
        machine: facts about the machine, by name.
        axes: of :func:`detrex.benchmark.measure_scaling`.
    """
    facts = ", ".join(f"{name}: {value}" for name, value in machine.items())
    sections = [f"<h1>{escape(title)}</h1><p>{escape(facts)}</p>"]
    sections += [_axis(axis) for axis in axes]
    with replaced_file(path) as temporary:
        temporary.write_text(document(title, sections), encoding="utf-8")


def save_scaling_picture(path: Path, axes: Sequence[Mapping[str, Any]]) -> None:
    """Writes only the curves, as an SVG file with a row for each axis, with time and memory.

    Args:
        path: of the file.
        axes: see :func:`save_scaling_page`.
    """
    charts = []
    for axis in axes:
        of_axis = f"{axis['meaning']} ({axis['mode']})"
        charts += [
            _chart(axis, f"{of_axis}: processor seconds", [_processor_seconds(axis)]),
            _chart(axis, f"{of_axis}: MiB beyond the model", [_memory(axis)]),
        ]
    charts = [chart for chart in charts if not chart.is_empty]
    with replaced_file(path) as temporary:
        temporary.write_text(picture(charts), encoding="utf-8")


def _chart(axis: Mapping[str, Any], title: str, series: Sequence[Series]) -> Chart:
    return Chart(title, series, logarithmic=True, over=axis["meaning"], last=False, powers=True)


def _processor_seconds(axis: Mapping[str, Any]) -> Series:
    return Series("processor", [(p["value"], p["processor_seconds"]) for p in axis["points"]])


def _memory(axis: Mapping[str, Any]) -> Series:
    return Series("memory", [(p["value"], p["memory"] / _MEBIBYTE) for p in axis["points"]])


def _axis(axis: Mapping[str, Any]) -> str:
    points = axis["points"]
    clock = Series("clock", [(p["value"], p["seconds"]) for p in points])
    charts = [
        _chart(axis, "seconds of a run", [_processor_seconds(axis), clock]),
        _chart(axis, "memory beyond the model, MiB", [_memory(axis)]),
    ]
    drawn = "".join(render(chart) for chart in charts if not chart.is_empty)
    rows = [(str(p["value"]), _cells(axis, k)) for k, p in enumerate(points)]
    columns = ["seconds", "processor s", "memory, MiB", "exponent of time", "exponent of memory"]
    stopped = f"<p>Stopped at {escape(axis['stopped'])}</p>" if axis["stopped"] else ""
    return (
        f"<h2>{escape(axis['meaning'])}, {axis['mode']}</h2><div class=charts>{drawn}</div>"
        f"{_growth(axis)}{text_table(columns, rows)}{stopped}"
    )


def _growth(axis: Mapping[str, Any]) -> str:
    """Describes from which value on time and memory grow, and how fast."""
    if len(axis["points"]) < 2:
        return ""
    sentences = []
    for key, name in (("processor_seconds", "Processor time"), ("memory", "Memory")):
        start, grown = axis["bends"][key], [e for e in axis["exponents"][key] if math.isfinite(e)]
        if start is None:
            sentences.append(f"{name} hardly grows.")
        else:
            sentences.append(f"{name} grows from {start:.0f} on, with the power {max(grown):.2f} at most.")
    return f"<p>{' '.join(sentences)}</p>"


def _cells(axis: Mapping[str, Any], k: int) -> list[str]:
    point = axis["points"][k]
    grown = [axis["exponents"][key][k - 1] if k else math.nan for key in ("processor_seconds", "memory")]
    return [
        f"{point['seconds']:.3g}",
        f"{point['processor_seconds']:.3g}",
        f"{point['memory'] / _MEBIBYTE:.0f}",
        *("" if math.isnan(e) else f"{round(e, 2) + 0:.2f}" for e in grown),  # no -0.00
    ]
