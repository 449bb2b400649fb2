"""The page of curves over what grows: time and memory, both axes by powers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from detrex.report.curves import Chart, Series, render
from detrex.report.html import document, text_table
from detrex.runtime.files import replaced_file

_MEBIBYTE = 2**20


def save_scaling_page(
    path: Path, title: str, machine: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]
) -> None:
    """Writes the page.

    Args:
        path: of the page.
        title: what was measured.
        machine: what it was measured on, by name.
        axes: of :func:`detrex.benchmark.measure_scaling`.
    """
    facts = ", ".join(f"{name}: {value}" for name, value in machine.items())
    sections = [f"<h1>{escape(title)}</h1><p>{escape(facts)}</p>"]
    sections += [_axis(axis) for axis in axes]
    with replaced_file(path) as temporary:
        temporary.write_text(document(title, sections), encoding="utf-8")


def _axis(axis: Mapping[str, Any]) -> str:
    points = axis["points"]
    seconds = [(p["value"], p["processor_seconds"]) for p in points]
    wall = [(p["value"], p["seconds"]) for p in points]
    memory = [(p["value"], p["memory"] / _MEBIBYTE) for p in points]
    charts = [
        Chart(
            "seconds of a run",
            [Series("processor", seconds), Series("clock", wall)],
            True,
            axis["meaning"],
            False,
            True,
        ),
        Chart("memory beyond the model, MiB", [Series("memory", memory)], True, axis["meaning"], False, True),
    ]
    drawn = "".join(render(chart) for chart in charts if not chart.is_empty)
    rows = [(str(p["value"]), _cells(axis, k)) for k, p in enumerate(points)]
    columns = ["seconds", "processor s", "memory, MiB", "exponent of time", "exponent of memory"]
    stopped = f"<p>Stopped at {escape(axis['stopped'])}</p>" if axis["stopped"] else ""
    return (
        f"<h2>{escape(axis['meaning'])}, {axis['mode']}</h2><div class=charts>{drawn}</div>"
        f"{text_table(columns, rows)}{stopped}"
    )


def _cells(axis: Mapping[str, Any], k: int) -> list[str]:
    point = axis["points"][k]
    grown = [axis["exponents"][key][k - 1] if k else math.nan for key in ("processor_seconds", "memory")]
    return [
        f"{point['seconds']:.3g}",
        f"{point['processor_seconds']:.3g}",
        f"{point['memory'] / _MEBIBYTE:.0f}",
        *("" if math.isnan(e) else f"{e:.2f}" for e in grown),
    ]
