"""The model zoo as a table: published models, their configs, results and files."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from detrex.checkpoint import ZooEntry, zoo_entries, zoo_entry
from detrex.config import projects_directory

_LEFT_OUT = ("parameters (M)", "GFLOPs")
_ROOM_FOR_TITLES = 110  # columns of a terminal


def markdown(entries: list[ZooEntry]) -> str:
    """The whole table, and the notes below it."""
    lines = [
        "| name | model | published result | parameters, published / ours (M) | GFLOPs | config | weights |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {' | '.join(_cells(entry))} |" for entry in entries]
    lines += ["", *(f"- `{entry.name}`: {entry.note}" for entry in entries if entry.note)]
    return "\n".join(lines) + "\n"


def _cells(entry: ZooEntry) -> list[str]:
    config = entry.config.relative_to(projects_directory().resolve().parent).as_posix()
    return [
        f"`{entry.name}`",
        entry.title,
        _results(entry),
        f"{entry.published.get('parameters (M)', '-')} / {entry.parameters / 1e6:.1f}",
        str(entry.published.get("GFLOPs", "-")),
        f"[{entry.config.stem}](../{config})",
        _weights(entry),
    ]


def _weights(entry: ZooEntry) -> str:
    if entry.url:
        return f"[{entry.file_name}]({entry.url})"
    return "address not known" if entry.published else "none published"


def _results(entry: ZooEntry) -> str:
    metrics = {name: value for name, value in entry.published.items() if name not in _LEFT_OUT}
    return ", ".join(f"{value} {name}" for name, value in metrics.items()) or "-"


def matching(name: str) -> list[ZooEntry]:
    """The row called ``name``, or all rows whose name contains it.

    Raises:
        CheckpointError: there is no such row; the message names the nearest ones.
    """
    rows = zoo_entries()
    if name in rows:
        return [rows[name]]
    return [entry for entry in rows.values() if name in entry.name] or [zoo_entry(name)]


def show(entries: list[ZooEntry]) -> None:
    """Prints a table, or everything about a single row."""
    console = Console(highlight=False, markup=False)
    if len(entries) == 1:
        for title, value in _details(entries[0]).items():
            console.print(f"{title + ':':<12}{value}", soft_wrap=True)
        return
    table = Table("name", "published result", "weights", box=None)
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    if console.width >= _ROOM_FOR_TITLES:
        table.add_column("model")
    for entry in entries:
        cells = [entry.name, _results(entry), "yes" if entry.url else "no", entry.title]
        table.add_row(*cells[: len(table.columns)])
    console.print(table)


def _details(entry: ZooEntry) -> dict[str, str]:
    return {
        "name": entry.name,
        "model": entry.title,
        "published": _results(entry),
        "parameters": f"{entry.parameters / 1e6:.1f} M",
        "classes": entry.classes,
        "config": str(entry.config),
        "weights": entry.url or _weights(entry),
        **({"note": entry.note} if entry.note else {}),
    }
