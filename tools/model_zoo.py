"""Lists the model zoo: published models, their configs, figures and files.

model_zoo.py                  names and what they are
model_zoo.py --markdown       the table of docs/model_zoo.md
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from detrex.checkpoint import ZooEntry, zoo_entries
from detrex.cli.arguments import command_parser
from detrex.config import projects_directory

_LEFT_OUT = ("parameters (M)", "GFLOPs")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--markdown", action="store_true", help="as Markdown, with links")
    return parser.parse_args(arguments)


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
    figures = {name: value for name, value in entry.published.items() if name not in _LEFT_OUT}
    return ", ".join(f"{value} {name}" for name, value in figures.items()) or "-"


def show(entries: list[ZooEntry]) -> None:
    """A table on the terminal."""
    table = Table("name", "model", "published result", "weights", box=None)
    table.columns[0].no_wrap = True
    for entry in entries:
        table.add_row(entry.name, entry.title, _results(entry), "yes" if entry.url else "no")
    Console().print(table)


if __name__ == "__main__":
    listed = list(zoo_entries().values())
    if parse_arguments().markdown:
        print(markdown(listed), end="")
    else:
        show(listed)
