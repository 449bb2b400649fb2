"""Arranges pictures side by side, with titles and captions."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from detrex.visualization.colors import BLACK, WHITE
from detrex.visualization.pictures import Picture, to_pil
from detrex.visualization.text import Line, typeset


def image_grid(
    rows: Sequence[Sequence[Picture]],
    titles: Sequence[str] = (),
    cell_size: int = 512,
    padding: int = 8,
    captions: Sequence[str] = (),
) -> Image.Image:
    """Pictures in rows and columns on white, ``titles`` above the columns, ``captions`` above the rows.

    Args:
        rows: pictures; rows may differ in length.
        titles: one for each column, or none.
        cell_size: longer side of every picture in the grid, in pixels.
        padding: pixels between pictures and around them.
        captions: one for each row, or none; lines that are wider than the grid are cut.

    Raises:
        ValueError: there is no picture, or the number of titles or captions is wrong.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ValueError("image_grid got no pictures")
    _check_count(titles, columns, "title", "column")
    _check_count(captions, len(rows), "caption", "row")
    cells = [[_fit(to_pil(picture), cell_size) for picture in row] for row in rows]
    widths = [max(row[k].width for row in cells if k < len(row)) for k in range(columns)]
    heights = [max((cell.height for cell in row), default=0) for row in cells]
    lefts = [padding + sum(widths[:k]) + padding * k for k in range(columns)]
    width = sum(widths) + padding * (columns + 1)
    heads = [typeset(t, max(14, cell_size // 22), w) for t, w in zip(titles, widths, strict=False)]
    texts = [
        [typeset(line, max(12, cell_size // 28), width - 2 * padding) for line in caption.splitlines()]
        for caption in captions or [""] * len(rows)
    ]
    bands = [sum(line.height for line in lines) + padding for lines in texts]
    top = max((line.height + padding for line in heads), default=0)
    grid = Image.new("RGB", (width, top + sum(bands) + sum(heights) + padding), WHITE)
    draw = ImageDraw.Draw(grid)
    for line, left, cell_width in zip(heads, lefts, widths, strict=False):
        _write(draw, line, left + (cell_width - line.width) / 2, padding)
    for row, height, lines, band in zip(cells, heights, texts, bands, strict=True):
        for number, line in enumerate(lines):
            _write(draw, line, padding, top + padding / 2 + number * line.height)
        top += band
        for cell, left, cell_width in zip(row, lefts, widths, strict=False):
            grid.paste(cell, (left + (cell_width - cell.width) // 2, top + (height - cell.height) // 2))
        top += height
    return grid


def _check_count(given: Sequence[str], count: int, what: str, where: str) -> None:
    if given and len(given) != count:
        raise ValueError(f"image_grid got {len(given)} {what}s for {count} {where}s")


def _write(draw: ImageDraw.ImageDraw, line: Line, left: float, top: float) -> None:
    draw.text((left, top + line.height / 2), line.text, fill=BLACK, font=line.font, anchor="lm")


def _fit(picture: Image.Image, size: int) -> Image.Image:
    factor = size / max(picture.size)
    width, height = picture.size
    new = max(1, round(width * factor)), max(1, round(height * factor))
    return picture if new == picture.size else picture.resize(new, Image.Resampling.LANCZOS)
