"""The progress bar of long operations; only terminals show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Item = TypeVar("Item")


def progress_bar(
    console: Console, *, counts_bytes: bool = False, shows_note: bool = False, remembered: float = 30.0
) -> Progress:
    """A progress bar, to be used as a context; disabled if ``console`` is no terminal.

    Args:
        console: where it is shown.
        counts_bytes: whether tasks count bytes instead of items; their speed is shown too.
        shows_note: whether a text of the task's field ``note`` stands behind the count; the bar then takes
            the whole width of the terminal.
        remembered: the time left is estimated from the speed of the last so many seconds.
    """
    columns: list[ProgressColumn] = [TextColumn("{task.description}")]
    columns.append(BarColumn(bar_width=None) if shows_note else BarColumn())
    columns += [DownloadColumn(), TransferSpeedColumn()] if counts_bytes else [MofNCompleteColumn()]
    if shows_note:
        columns.append(TextColumn("{task.fields[note]}"))
    columns += [TextColumn("eta"), TimeRemainingColumn()]
    return Progress(
        *columns,
        console=console,
        disable=not console.is_terminal,
        expand=shows_note,
        speed_estimate_period=remembered,
    )


def with_progress(items: Sequence[Item], title: str) -> Iterable[Item]:
    """Yields ``items`` one after another, with a progress bar on stdout."""
    with progress_bar(Console()) as progress:
        yield from progress.track(items, description=title)
