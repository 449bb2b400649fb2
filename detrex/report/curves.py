"""Draws curves as SVG, so that a page needs nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from detrex.report.style import PICTURE_STYLE

Point = tuple[float, float]

_WIDTH, _HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 18, 10, 26  # margins
_TITLE, _GAP = 30, 10  # height of titles, and gap between charts in a picture
_MOST_POINTS = 200  # a line with more points is averaged
_MOST_HINTS = 50  # points of a line that show their values under the pointer
COLORS = 8  # colours of lines in the style sheet


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        label: for the legend.
        points: (x, value) in ascending order of x; values that are not finite are gaps.
    """

    label: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Chart:
    """Lines over the same axis.

    Attributes:
        title: name of the values.
        series: at most :data:`COLORS`.
        logarithmic: whether values have a logarithmic axis; values that are not above 0 are then left out.
        over: name of x; for iterations, only integers are marked.
        last: whether the legend shows the last values.
        powers: whether x, then above 0, has a logarithmic axis, marked at the points themselves.
    """

    title: str
    series: Sequence[Series]
    logarithmic: bool = False
    over: str = "iteration"
    last: bool = True
    powers: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(_finite(series, self.logarithmic) for series in self.series)


def render(chart: Chart) -> str:
    """An HTML ``figure`` with title, legend and lines. The chart must not be empty."""
    return (
        f"<figure class=chart><figcaption><b>{escape(chart.title)}</b>{_legend(chart)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img aria-label="{escape(chart.title)}">'
        f"{_drawing(chart)}</svg></figure>"
    )


def picture(charts: Sequence[Chart], columns: int = 2) -> str:
    """Charts in rows and columns as a stand-alone SVG, light or dark like the reader's screen.

    Charts must not be empty. They have no legend, so each should have one line.
    """
    rows = -(-len(charts) // columns)
    width, height = columns * (_WIDTH + _GAP) + _GAP, rows * (_TITLE + _HEIGHT + _GAP) + _GAP
    pieces = []
    for k, chart in enumerate(charts):
        x, y = _GAP + k % columns * (_WIDTH + _GAP), _GAP + k // columns * (_TITLE + _HEIGHT + _GAP)
        pieces.append(
            f"<g transform='translate({x} {y})'>"
            f"<rect class='card' width='{_WIDTH}' height='{_TITLE + _HEIGHT}' rx='8'/>"
            f"<text class='title' x='12' y='20'>{escape(chart.title)}</text>"
            f"<g transform='translate(0 {_TITLE})'>{_drawing(chart)}</g></g>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{PICTURE_STYLE}</style>{"".join(pieces)}</svg>\n'
    )


def _drawing(chart: Chart) -> str:
    """Axes and lines without the surrounding element, as well-formed XML."""
    lines = [_thinned(_finite(series, chart.logarithmic)) for series in chart.series]
    points = [point for line in lines for point in line]
    frame = _Frame([x for x, _ in points], [y for _, y in points], chart.logarithmic, chart.powers)
    drawn = "".join(
        _line(line, k, frame, chart.series[k].label, chart.over) for k, line in enumerate(lines) if line
    )
    return f"{_axes(frame, chart.over)}{drawn}"


def number(value: float) -> str:
    """Writes a number in few characters."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 and abs(value) < 1e6 else f"{value:.4g}"


class _Frame:
    """Converts values to positions in the picture."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], logarithmic: bool, powers: bool):
        self._logarithmic, self._powers = logarithmic, powers
        self._x = _widened(*(math.log10(x) if powers else x for x in (min(xs), max(xs))))
        low, high = min(ys), max(ys)
        if logarithmic:
            self.y_ticks = _powers(low, high)
            ends = [low, high, *self.y_ticks]
            self._y = _widened(math.log10(min(ends)), math.log10(max(ends)))
        else:
            self.y_ticks = ticks(low, high)
            self._y = _widened(min(low, self.y_ticks[0]), max(high, self.y_ticks[-1]))
        if powers:
            self.x_ticks = sorted(set(xs))
        else:
            self.x_ticks = [t for t in ticks(*self._x) if self._x[0] <= t <= self._x[1]]

    def x(self, value: float) -> float:
        low, high = self._x
        place = math.log10(value) if self._powers else value
        return _LEFT + (place - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y
        place = math.log10(value) if self._logarithmic else value
        return _HEIGHT - _BOTTOM - (place - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers, about ``count``, from below ``low`` to above ``high``."""
    low, high = _widened(low, high)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) if step > 1e-9 else k * step for k in range(first, last + 1)]


def _powers(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, (last - first) // 4)
    return [10.0**k for k in range(first, last + 1, step)]


def _widened(low: float, high: float) -> tuple[float, float]:
    if high > low:
        return low, high
    room = abs(low) / 2 or 1.0
    return low - room, high + room


def _finite(series: Series, logarithmic: bool) -> list[Point]:
    return [(x, y) for x, y in series.points if math.isfinite(y) and (y > 0 or not logarithmic)]


def _thinned(points: list[Point]) -> list[Point]:
    """Averages points over pieces of equal length if there are too many; the last one stays."""
    if len(points) <= _MOST_POINTS:
        return points
    size = -(-len(points) // _MOST_POINTS)
    pieces = [points[k : k + size] for k in range(0, len(points) - 1, size)]
    means = [tuple(sum(values) / len(piece) for values in zip(*piece, strict=True)) for piece in pieces]
    return [*means, points[-1]]


def _axes(frame: _Frame, over: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    rows = "".join(
        f"<path class='grid' d='M{_LEFT} {frame.y(t):.1f}H{right}'/>"
        f"<text x='{_LEFT - 6}' y='{frame.y(t) + 4:.1f}' text-anchor='end'>{number(t)}</text>"
        for t in frame.y_ticks
    )
    columns = "".join(
        f"<text x='{frame.x(t):.1f}' y='{_HEIGHT - 8}' text-anchor='middle'>{number(t)}</text>"
        for t in frame.x_ticks
        if over != "iteration" or float(t).is_integer()
    )
    return f"{rows}<path class='axis' d='M{_LEFT} {bottom}H{right}'/>{columns}"


def _line(points: list[Point], k: int, frame: _Frame, label: str, over: str) -> str:
    places = [(frame.x(x), frame.y(y)) for x, y in points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    step = -(-len(points) // _MOST_HINTS)
    hints = "".join(
        f"<circle class='hint' cx='{px:.1f}' cy='{py:.1f}' r='5'><title>{escape(label)}: {number(y)} at "
        f"{escape(over)} "
        f"{number(x) if over != 'iteration' else f'{x:.0f}'}</title></circle>"
        for (x, y), (px, py) in list(zip(points, places, strict=True))[::-step]
    )
    end_x, end_y = places[-1]
    return (
        f"<g class='s{k}'><path class='line' d='M{path}'/>"
        f"<circle class='end' cx='{end_x:.1f}' cy='{end_y:.1f}' r='3'/>"
        f"{hints}</g>"
    )


def _legend(chart: Chart) -> str:
    """The last value of each line, if wanted; with several lines, also their colours and names."""
    entries = []
    for k, series in enumerate(chart.series):
        points = _finite(series, chart.logarithmic)
        if points:
            label = f"<i class=s{k}></i>{escape(series.label)} " if len(chart.series) > 1 else ""
            value = f"<em>{number(points[-1][1])}</em>" if chart.last else ""
            entries.append(f"<span>{label}{value}</span>")
    return f"<span class=legend>{''.join(entries)}</span>"
