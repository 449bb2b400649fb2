"""The page that shows the faults of a data set: one file with pictures, which needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from detrex.data.check import KINDS, CheckReport, Example, Finding
from detrex.data.coco.segmentation import rasterise, read_segmentation
from detrex.data.errors import DataError
from detrex.data.image_io import read_image
from detrex.report.html import document, folded, inline_picture, text_table
from detrex.runtime.files import replaced_file

_PICTURES = 4  # pictures of a finding
_LONGEST = 420  # pixels
_BOX, _SHAPE = (227, 73, 72), (42, 120, 214)  # colours of listed boxes and shapes
_LEGEND = "On pictures, boxes are red and masks blue, as the file lists them."


def save_dataset_page(path: Path, title: str, report: CheckReport) -> None:
    """Writes the page.

    Args:
        path: of the page.
        title: name of the data set.
        report: of the check.
    """
    findings = report.findings.sorted()
    errors = sum(finding.severity == "error" for finding in findings)
    tiles = {"errors": errors, "warnings": len(findings) - errors}
    tiles |= {f"images, {facts.name}": len(facts.files) for facts in report.facts}
    shown = "".join(
        f"<div class=tile><b>{value}</b><span>{escape(name)}</span></div>" for name, value in tiles.items()
    )
    sections = [f"<h1>{escape(title)}</h1><div class=tiles>{shown}</div>"]
    sections.append(f"<p>{_LEGEND if findings else 'Nothing is wrong.'}</p>")
    for severity, heading in (("error", "Errors"), ("warning", "Warnings")):
        chosen = [finding for finding in findings if finding.severity == severity]
        sections += [f"<h2>{heading}</h2>"] if chosen else []
        sections += [_finding(finding) for finding in chosen]
    if report.advice:
        rows = [(name, [value]) for name, value in report.advice.items()]
        sections.append(f"<h2>Settings that fit</h2>{text_table(['value'], rows)}")
    if (census := report.census) is not None:
        overview, classes = (
            text_table(census.columns, rows) for rows in (census.overview(), census.classes())
        )
        sections.append(f"<h2>Data</h2>{overview}{folded('Objects per class', classes)}")
    with replaced_file(path) as temporary:
        temporary.write_text(document(title, sections), encoding="utf-8")


def _finding(finding: Finding) -> str:
    pictures: list[str] = []
    others: list[str] = []
    for example in finding.examples:
        picture = _picture(example) if example.image and len(pictures) < _PICTURES else None
        text = escape(example.text, quote=True)
        if picture is None:
            others.append(f"<li>{text}</li>")
        else:
            source = inline_picture(picture, _LONGEST)
            pictures.append(
                f"<figure><img alt='{text}' src='{source}'><figcaption>{text}</figcaption></figure>"
            )
    advice = escape(KINDS[finding.kind].advice)
    row = f"<div class=row>{''.join(pictures)}</div>" if pictures else ""
    listed = f"<ul>{''.join(others)}</ul>" if others else ""
    return f"<section class=shown><p><b>{escape(finding.title)}</b> {advice}</p>{row}{listed}</section>\n"


def _picture(example: Example) -> Image.Image | None:
    """The picture of an example with its annotation; None if it cannot be read."""
    try:
        pixels = read_image(example.image)
    except (DataError, OSError):
        return None
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    scale = max(1, -(-_LONGEST // (2 * max(picture.size))))
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    if example.entry is not None:
        _draw(picture, example.entry, scale)
    return picture


def _draw(picture: Image.Image, entry: Mapping[str, Any], scale: int) -> None:
    draw = ImageDraw.Draw(picture)
    width = max(2, max(picture.size) // 200)
    size = picture.height // scale, picture.width // scale
    segmentation, box = entry.get("segmentation"), entry.get("bbox")
    try:
        if isinstance(segmentation, Mapping) and (shape := read_segmentation(segmentation, size)) is not None:
            mask = Image.fromarray(rasterise([shape[0]], *size)[0].numpy().astype(np.uint8) * 110)
            picture.paste(_SHAPE, mask=mask.resize(picture.size, Image.Resampling.NEAREST))
        for polygon in segmentation if isinstance(segmentation, list) else ():
            points = [float(v) * scale for v in polygon]
            draw.line([*points, *points[:2]], fill=_SHAPE, width=width)
    except (TypeError, ValueError, OverflowError):
        pass  # it cannot be drawn; the text describes the fault
    try:
        x, y, w, h = (float(v) * scale for v in box or ())
        draw.line([x, y, x + w, y, x + w, y + h, x, y + h, x, y], fill=_BOX, width=width)
    except (TypeError, ValueError, OverflowError):
        pass
