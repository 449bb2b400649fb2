"""Sections of the page that explain the average precision of detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from detrex.data import ImageDataset
from detrex.evaluation.analysis import RECALLS, DetectionAnalysis, ErrorExample
from detrex.evaluation.matching import ERRORS
from detrex.report.curves import COLORS, Chart, Series, render
from detrex.report.html import folded, inline_picture, text_table

_MATRIX = 30  # largest number of classes for which the whole confusion matrix is shown
_PAIRS = 20  # confused pairs of classes that are shown otherwise
_LONGEST = 360  # pixels of a picture
_MARGIN = 0.6  # margin around the boxes of a picture, as a share of their longer side
_FOUND, _TRUE = (227, 73, 72), (27, 175, 122)
_OPACITY = 110  # of masks, of 255

_MEANINGS = {
    "classification": "on an object of another class",
    "localisation": "of the right class, but its place fits too little (IoU 0.1 to 0.5)",
    "both": "class and place are wrong",
    "duplicate": "on an object that a better detection has found",
    "background": "on nothing",
    "missed": "objects that no detection found or nearly found",
}


def detection_sections(analysis: DetectionAnalysis, pictures: Mapping[str, Sequence[str]]) -> str:
    """HTML of the sections.

    Args:
        analysis: of an evaluation.
        pictures: by kind of error, HTML images of examples.
    """
    return (
        f"<h2>Errors of {analysis.task}</h2>{_errors(analysis, pictures)}"
        f"<h2>Scores</h2><div class=charts>{_calibration(analysis)}</div>"
        f"<h2>Precision and recall</h2>{_precision(analysis)}"
        f"<h2>Confusion</h2>{confusion_table(analysis.confusion, [*analysis.class_names, 'nothing'])}"
    )


def _errors(analysis: DetectionAnalysis, pictures: Mapping[str, Sequence[str]]) -> str:
    rows = [
        (name, [str(analysis.counts[name]), f"{analysis.lost[name]:.2f}", _MEANINGS[name]]) for name in ERRORS
    ]
    table = text_table(["errors", "AP50 lost", "what it is"], rows)
    shown = "".join(
        folded(f"{escape(name)}: examples (red: found, green: true)", "".join(pictures[name]))
        for name in ERRORS
        if pictures.get(name)
    )
    return table + shown


def _calibration(analysis: DetectionAnalysis) -> str:
    points = [(b.score, b.precision) for b in analysis.calibration]
    if not points:
        return "<p>Nothing was found.</p>"
    title = f"share of right detections by score; mean distance {analysis.calibration_error:.3f}"
    lines = [Series("detections", points), Series("ideal", [(0.0, 0.0), (1.0, 1.0)])]
    counts = [(b.score, float(b.count)) for b in analysis.calibration]
    amounts = Chart("detections by score", [Series("detections", counts)], True, "score", False)
    return render(Chart(title, lines, over="score", last=False)) + render(amounts)


def _precision(analysis: DetectionAnalysis) -> str:
    known = [k for k in range(len(analysis.class_names)) if np.isfinite(analysis.precision[k]).all()]
    order = sorted(known, key=lambda k: -float(analysis.precision[k].mean()))
    charts = []
    for start in range(0, len(order), COLORS):
        lines = [
            Series(
                analysis.class_names[k],
                list(zip(RECALLS.tolist(), analysis.precision[k].tolist(), strict=True)),
            )
            for k in order[start : start + COLORS]
        ]
        charts.append(render(Chart("precision by recall, IoU 0.5", lines, over="recall", last=False)))
    first, others = "".join(charts[:2]), "".join(charts[2:])
    more = folded("Other classes", f"<div class=charts>{others}</div>") if others else ""
    return f"<div class=charts>{first}</div>{more}"


def confusion_table(matrix: np.ndarray, names: Sequence[str]) -> str:
    """HTML of a confusion matrix, or of its largest entries off the diagonal.

    Args:
        matrix: (N, N) counts, rows are true, columns found.
        names: N names.
    """
    if len(names) <= _MATRIX + 1:
        rows = [(name, [f"{count:,}" for count in matrix[k]]) for k, name in enumerate(names)]
        return text_table([f"found: {name}" for name in names], rows)
    others = matrix.copy()
    np.fill_diagonal(others, 0)
    largest = np.argsort(-others, axis=None, kind="stable")[:_PAIRS]
    pairs = [divmod(int(place), len(names)) for place in largest]
    listed = [(names[i], [names[k], f"{others[i, k]:,}"]) for i, k in pairs if others[i, k]]
    return text_table(["found", "how often"], listed)


def error_pictures(analysis: DetectionAnalysis, dataset: ImageDataset) -> dict[str, list[str]]:
    """HTML images of the examples by kind of error.

    Args:
        analysis: of an evaluation.
        dataset: with the images.
    """
    index_of = {image_id: index for index, (image_id, _) in enumerate(dataset.image_names())}
    shown: dict[str, list[str]] = {}
    for example in analysis.examples:
        if example.image_id not in index_of:
            continue
        pixels = dataset.record(index_of[example.image_id], draw_masks=False)["image"]
        picture = draw_error(Image.fromarray(pixels.permute(1, 2, 0).numpy()), example)
        text = escape(describe(example, analysis.class_names), quote=True)
        source = inline_picture(picture, _LONGEST)
        image = (
            f"<figure class=shown><figcaption>{text}</figcaption><img alt='{text}' src='{source}'></figure>"
        )
        shown.setdefault(example.kind, []).append(image)
    return shown


def describe(example: ErrorExample, names: Sequence[str]) -> str:
    """Describes an error in one line."""
    if example.kind == "missed":
        return f"image {example.image_id}: {names[example.class_index]} was not found"
    about = f", true: {names[example.object_class]}" if example.object_class >= 0 else ""
    return f"image {example.image_id}: {names[example.class_index]} {example.score:.2f}{about}"


def draw_error(image: Image.Image, example: ErrorExample) -> Image.Image:
    """The part of an image with an error, with its boxes and, if masks are evaluated, its masks."""
    places = [example.place] + ([example.object_place] if example.object_place is not None else [])
    x0, y0, x1, y1 = (f(p.box[k] for p in places) for k, f in enumerate((min, min, max, max)))
    margin = _MARGIN * max(x1 - x0, y1 - y0, 16)
    left, top = max(0, int(x0 - margin)), max(0, int(y0 - margin))
    right, bottom = min(image.width, int(x1 + margin) + 1), min(image.height, int(y1 + margin) + 1)
    region = left, top, max(right, left + 1), max(bottom, top + 1)
    picture = image.crop(region)
    scale = _LONGEST / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture = picture.resize(size)
    colors = (_TRUE,) if example.kind == "missed" else (_FOUND, _TRUE)
    for place, color in zip(places, colors, strict=False):
        if place.mask is not None:
            mask = Image.fromarray(coco_mask.decode(place.mask) * _OPACITY).crop(region).resize(size)
            picture.paste(color, mask=mask)
    draw = ImageDraw.Draw(picture)
    for place, color in zip(places, colors, strict=False):
        corners = [(v - (top if k % 2 else left)) * scale for k, v in enumerate(place.box)]
        if corners[2] >= corners[0] and corners[3] >= corners[1]:
            draw.rectangle(corners, outline=color, width=3)
    return picture
