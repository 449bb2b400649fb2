"""Average precision of instances by the rules of Cityscapes' own script.

They differ from COCO's: precision is not interpolated; of several detections of an object, the best one
counts and the others are wrong; and a wrong detection is ignored if it lies on groups, small objects or
unlabelled pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from detrex.data.categories import category_file, read_categories
from detrex.data.errors import DataError
from detrex.data.image_io import read_label_map
from detrex.evaluation.classes import check_class_indices, missing_output
from detrex.evaluation.gather import image_id_of, merge_by_image
from detrex.evaluation.report import PerClass, class_labels
from detrex.structures import Categories, Instances, Sample

logger = logging.getLogger(__name__)

OVERLAPS = np.arange(0.5, 1.0, 0.05)
"""IoU that a detection has to exceed."""

LEAST_AREA = 100
"""Area in pixels; smaller objects are ignored."""

VOID = (-1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
"""Label ids that the benchmark does not count."""

_IDS = 1000  # id of an instance = 1000 * label + number; the id of a group is the label alone


class Pair(NamedTuple):
    """A detection and an object of its class that share pixels."""

    detection: int
    target: int
    shared: int


@dataclass(frozen=True)
class ImageResult:
    """The facts that are kept about one image.

    Attributes:
        labels, scores, areas, void: of N detections: label ids, scores, areas in pixels, and how many of the
            pixels are unlabelled.
        object_labels, object_areas, is_group: of M objects.
        pairs: overlapping pairs of a detection and an object of the same label.
    """

    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    void: np.ndarray
    object_labels: np.ndarray
    object_areas: np.ndarray
    is_group: np.ndarray
    pairs: list[Pair]


class CityscapesInstanceEvaluator:
    """AP of ``outputs["instances"]``, over the images that were processed.

    Metrics, in percent: ``cityscapes/AP`` (IoU 0.5 to 0.95) and ``cityscapes/AP50``, as means over classes
    with objects.

    Args:
        segments: folder of ``gtFine/val``, with ``*_gtFine_instanceIds.png`` in folders of cities.
        classes: the model's classes; ids are Cityscapes' label ids. By default, the eight with instances.
        image_suffix: ending of the images' names, which ``segment_suffix`` replaces.
        segment_suffix: see ``image_suffix``.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(
        self,
        segments: str | Path,
        classes: str | Path | Categories | None = None,
        image_suffix: str = "_leftImg8bit.png",
        segment_suffix: str = "_gtFine_instanceIds.png",
    ) -> None:
        self.segments = Path(segments)
        if not self.segments.is_dir():
            raise FileNotFoundError(f"{segments}: no such directory (Cityscapes' gtFine of one split)")
        chosen = category_file("cityscapes_instance") if classes is None else classes
        self.categories = chosen if isinstance(chosen, Categories) else read_categories(chosen)
        self.image_suffix, self.segment_suffix = image_suffix, segment_suffix
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self.per_class: PerClass = {}
        self._images: dict[Hashable, ImageResult] = {}

    def process(self, samples: Sequence[Sample], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Compares the instances of each image with its ground truth.

        Raises:
            DataError: an image has no ground truth.
            ValueError: the output has no instances or masks, or its masks have the wrong size.
        """
        for sample, output in zip(samples, outputs, strict=True):
            if "instances" not in output:
                raise ValueError(missing_output("instances", self))
            check_class_indices(output["instances"].pred_classes, len(self.categories))
            self._images[image_id_of(sample)] = self._compare(sample, output["instances"])

    def evaluate(self) -> dict[str, float]:
        """``cityscapes/AP`` and ``cityscapes/AP50`` over the images of all processes."""
        images = list(merge_by_image(self._images).values())
        labels = class_labels(self.categories)
        ap = np.array(
            [
                [average_precision(images, label, overlap) for overlap in OVERLAPS]
                for label in self.categories.ids
            ]
        ).reshape(len(labels), -1)  # (C, T)
        self.per_class = {
            "cityscapes/AP": dict(zip(labels, (100 * ap.mean(1)).tolist(), strict=True)),
            "cityscapes/AP50": dict(zip(labels, (100 * ap[:, 0]).tolist(), strict=True)),
        }
        measured = ap[np.isfinite(ap[:, 0])]
        if not len(measured):
            return {name: float("nan") for name in self.metric_names()}
        return {
            "cityscapes/AP": 100 * float(measured.mean()),
            "cityscapes/AP50": 100 * float(measured[:, 0].mean()),
        }

    def metric_names(self) -> list[str]:
        """Names of the metrics that :meth:`evaluate` returns."""
        return ["cityscapes/AP", "cityscapes/AP50"]

    def _compare(self, sample: Sample, instances: Instances) -> ImageResult:
        name = sample["file_name"].removesuffix(self.image_suffix)
        path = self.segments / f"{name}{self.segment_suffix}"
        truth = read_label_map(path).astype(np.int64)
        if instances.masks is None:
            raise ValueError("the model predicts no masks, of which Cityscapes' AP is taken")
        if truth.shape != tuple(instances.image_size):
            raise DataError(
                f"{path} has {truth.shape} pixels (height, width), the results are for {instances.image_size}"
            )
        ids, areas = np.unique(truth, return_counts=True)
        labels = np.where(ids < _IDS, ids, ids // _IDS)
        kept = np.isin(labels, self.categories.ids)
        void_map = np.isin(truth, VOID)
        objects = dict(zip(ids[kept].tolist(), range(int(kept.sum())), strict=True))
        found = [self.categories.ids[k] for k in instances.pred_classes.tolist()]
        pairs, sizes, void = [], [], []
        for k, rle in enumerate(instances.masks.rles):
            inside = truth[coco_mask.decode(rle).astype(bool)]
            sizes.append(len(inside))
            void.append(int(np.isin(inside, VOID).sum()) if void_map.any() else 0)
            for object_id, shared in zip(*np.unique(inside, return_counts=True), strict=True):
                place = objects.get(int(object_id))
                if place is not None and labels[kept][place] == found[k]:
                    pairs.append(Pair(k, place, int(shared)))
        return ImageResult(
            np.array(found, np.int64),
            instances.scores.cpu().double().numpy(),
            np.array(sizes, np.int64),
            np.array(void, np.int64),
            labels[kept],
            areas[kept],
            ids[kept] < _IDS,
            pairs,
        )


def average_precision(images: Sequence[ImageResult], label: int, overlap: float) -> float:
    """AP in [0, 1] of a class at an IoU; NaN if it has no objects.

    Args:
        images: of the data set.
        label: id of the class.
        overlap: IoU that a match has to exceed.
    """
    scores: list[float] = []
    right: list[bool] = []
    missed, objects, detections = 0, 0, 0
    for image in images:
        counted = (image.object_labels == label) & ~image.is_group & (image.object_areas >= LEAST_AREA)
        chosen = (image.labels == label) & (image.areas > 0)
        objects += int(counted.sum())
        detections += int(chosen.sum())
        on_object: dict[int, list[float]] = {int(k): [] for k in np.flatnonzero(counted)}
        touching = np.zeros(len(image.labels), bool)
        forgiven = image.void.astype(float).copy()
        for pair in image.pairs:
            if image.labels[pair.detection] != label:
                continue
            union = image.areas[pair.detection] + image.object_areas[pair.target] - pair.shared
            if pair.shared / union > overlap:
                touching[pair.detection] = True
                if pair.target in on_object:
                    on_object[pair.target].append(float(image.scores[pair.detection]))
            if image.is_group[pair.target]:
                forgiven[pair.detection] += pair.shared
            if image.object_areas[pair.target] < LEAST_AREA:
                forgiven[pair.detection] += pair.shared
        for found in on_object.values():
            missed += not found
            best_first = sorted(found, reverse=True)
            scores += best_first
            right += [place == 0 for place in range(len(best_first))]
        share = forgiven / np.maximum(image.areas, 1)
        wrong = chosen & ~touching & (share <= overlap)
        scores += image.scores[wrong].tolist()
        right += [False] * int(wrong.sum())
    if not objects:
        return float("nan")
    if not detections or not scores:
        return 0.0
    return _area_under_curve(np.array(scores), np.array(right), missed)


def _area_under_curve(scores: np.ndarray, right: np.ndarray, missed: int) -> float:
    """The area under precision over recall, by the script's trapezoids of width (r(k-1) - r(k+1)) / 2.

    Args:
        scores: (K,) of the detections.
        right: (K,) bool.
        missed: number of objects without a detection.
    """
    order = np.argsort(scores, kind="stable")
    scores, right = scores[order], right[order]
    _, first = np.unique(scores, return_index=True)
    below = np.concatenate([[0], np.cumsum(right)])[first]  # right detections that a threshold removes
    hits = right.sum() - below
    precision = np.append(hits / (len(scores) - first), 1.0)
    recall = np.append(hits / np.maximum(hits + below + missed, 1), 0.0)
    ends = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (0.5 * (ends[:-2] - ends[2:])))
