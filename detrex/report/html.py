"""Pieces of pages that need nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO

from PIL import Image

from detrex.report.style import STYLE

WIDEST = 1400
"""Largest length in pixels of the longer side of a picture."""


def document(title: str, sections: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: plain text.
        sections: HTML.
    """
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{''.join(sections)}</main></body></html>\n"
    )


def text_table(columns: Sequence[str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A table with a title and cells in each row, all of them plain text."""
    head = "".join(f"<th>{escape(column)}</th>" for column in ("", *columns))
    body = "".join(
        f"<tr><td>{escape(title)}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for title, cells in rows
    )
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>\n"


def inline_picture(picture: Image.Image, longest: int = WIDEST) -> str:
    """A picture as an address that holds it, for the attribute ``src``.

    Args:
        picture: RGB.
        longest: pixels of its longer side; larger ones are reduced.
    """
    picture = picture.copy()
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    file = BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def folded(title: str, content: str) -> str:
    """Content that opens under its title; empty if there is no content.

    Args:
        title, content: HTML.
    """
    return f"<details><summary>{title}</summary>{content}</details>\n" if content else ""
