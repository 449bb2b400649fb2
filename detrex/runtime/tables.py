"""Tables in plain text, suitable for any log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table


def markdown_table(columns: Sequence[str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A Markdown table in ASCII: a title and right-aligned cells in each row.

    Args:
        columns: titles of the cells.
        rows: each with its title and one cell for each column.
    """
    table = Table(box=MARKDOWN)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for title, cells in rows:
        table.add_row(title, *cells)
    # Wide enough for any table, so that nothing is cut, neither in files nor in terminals.
    text = StringIO()
    console = Console(file=text, width=100 + sum(len(c) + 12 for c in columns), no_color=True, markup=False)
    console.print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join(line for line in lines if line)
