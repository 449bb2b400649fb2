"""Matches detections and objects, given as entries of COCO files, for an analysis."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from detrex.evaluation.analysis import ErrorExample, Place
from detrex.evaluation.matching import ERRORS, ImageDetections, ImageMatches, ImageObjects, match

_PER_IMAGE = 2  # examples of each kind


def match_entries(
    image_id: Hashable,
    detections: Sequence[Mapping[str, Any]],
    objects: Sequence[Mapping[str, Any]],
    key: str,
    index_of: Mapping[int, int],
) -> ImageMatches:
    """Matches the detections of one image with its objects.

    Args:
        image_id: of the image.
        detections: entries of results, by descending score.
        objects: entries of annotations.
        key: ``"bbox"`` or ``"segmentation"``, by which they are compared.
        index_of: class index of each category id.
    """
    crowds = np.array([bool(o["iscrowd"]) for o in objects], bool)
    iou = np.zeros((len(detections), len(objects)))
    if len(detections) and len(objects):
        shapes = [d[key] for d in detections], [o[key] for o in objects]
        iou = np.asarray(coco_mask.iou(*shapes, crowds.astype(np.uint8).tolist()))
    found = ImageDetections(
        np.array([index_of[d["category_id"]] for d in detections], int),
        np.array([d["score"] for d in detections], float),
    )
    there = ImageObjects(np.array([index_of[o["category_id"]] for o in objects], int), crowds)
    return match(image_id, found, there, iou)


def examples_of(
    matched: ImageMatches,
    detections: Sequence[Mapping[str, Any]],
    objects: Sequence[Mapping[str, Any]],
    key: str,
) -> list[ErrorExample]:
    """Examples of errors in one image: the first ones of each kind.

    Args:
        matched: the matches of the detections.
        detections, objects, key: see :func:`match_entries`.
    """

    def place(entry: Mapping[str, Any]) -> Place:
        return Place(_corners(entry["bbox"]), entry[key] if key == "segmentation" else None)

    examples = []
    for number, kind in enumerate(ERRORS):
        for k in np.flatnonzero(matched.errors == number)[:_PER_IMAGE].tolist():
            about = int(matched.objects[k])
            label = int(matched.classes[k])
            score, found = float(matched.scores[k]), place(detections[k])
            example = ErrorExample(kind, matched.image_id, label, score, found)
            if about >= 0:
                true_class = int(matched.object_classes[about])
                example = replace(example, object_class=true_class, object_place=place(objects[about]))
            examples.append(example)
    for k in np.flatnonzero(matched.missed)[:_PER_IMAGE].tolist():
        label = int(matched.object_classes[k])
        examples.append(ErrorExample("missed", matched.image_id, label, float("nan"), place(objects[k])))
    return examples


def _corners(box: Sequence[float]) -> tuple[float, ...]:
    x, y, width, height = box
    return x, y, x + width, y + height
