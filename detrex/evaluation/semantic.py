"""Mean IoU and related metrics of semantic segmentation.

Shape letters: C classes, H and W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex.data.categories import read_categories
from detrex.data.coco.categories import parse_categories
from detrex.data.file_names import AS_LISTED
from detrex.data.image_io import Orientation
from detrex.evaluation.boundary import boundary_width, label_boundary
from detrex.evaluation.classes import missing_output
from detrex.evaluation.gather import image_id_of, merge_by_image
from detrex.evaluation.panoptic_files import PanopticFiles
from detrex.evaluation.report import PerClass, class_labels
from detrex.evaluation.semantic_files import IGNORED, PanopticAsSemantic, SemanticPngs, SemanticTruth
from detrex.structures import Categories, Sample, class_map

logger = logging.getLogger(__name__)


class SemanticEvaluator:
    """IoU and accuracy of the arg max of ``outputs["sem_seg"]``, over the images that were processed.

    Metrics, in percent: ``semantic/mIoU``, ``fwIoU`` (IoU weighted by how often a class occurs),
    ``mean_accuracy`` and ``pixel_accuracy``. Unlabelled pixels are ignored. Classes that occur neither in
    ground truth nor in predictions are left out of mIoU; mean accuracy is over the classes in ground truth.

    Args:
        segments: folder of the ground truth's PNGs: semantic ones, whose pixels are category ids (or class
            indices, for classes given as names), or panoptic ones if ``annotations`` is given.
        annotations: COCO panoptic JSON, to evaluate against a panoptic data set.
        classes: with ``annotations``, the model's classes, if they are not the categories of ``annotations``
            ordered by id. Without ``annotations``, the PNGs' classes: a file, class names or categories.
        ignore_label: value, or values, of unlabelled pixels in semantic PNGs. In panoptic PNGs, it is id 0.
        image_suffix: for semantic PNGs, the ending of the images' names that ``segment_suffix`` replaces in
            the PNGs' names; empty: the file type. Both are as in :class:`detrex.data.SemanticFolder`.
        segment_suffix: see ``image_suffix``.
        images, file_names, orientation, leave_folder: with ``annotations``, see
            :class:`detrex.evaluation.PanopticEvaluator`.
        boundary: whether to measure also ``semantic/boundary_mIoU``, the mean over classes of the IoU of
            boundaries (:mod:`detrex.evaluation.boundary`), which takes some time.

    Attributes:
        confusion: (C, C) int64 of the last evaluation, pixels by true class (rows) and found class.
    """

    def __init__(
        self,
        segments: str | Path,
        annotations: str | Path | None = None,
        classes: str | Path | Sequence[str] | Categories | None = None,
        ignore_label: int | Sequence[int] = 255,
        image_suffix: str = "",
        segment_suffix: str = ".png",
        images: str | Path | None = None,
        file_names: str = AS_LISTED,
        orientation: Orientation = "auto",
        leave_folder: bool = False,
        boundary: bool = False,
    ) -> None:
        if annotations is not None:
            if isinstance(classes, Sequence) and not isinstance(classes, str):
                raise ValueError("with annotations, classes are those of a file, or categories; no names")
            files = PanopticFiles(
                annotations, segments, classes, images, file_names, orientation, leave_folder
            )
            self.ground_truth: SemanticTruth = PanopticAsSemantic(files)
        elif classes is not None:
            self.ground_truth = SemanticPngs(
                segments, _categories(classes), ignore_label, image_suffix, segment_suffix
            )
        else:
            raise ValueError("SemanticEvaluator needs the classes of the PNGs, or a panoptic annotation file")
        self.segments = segments
        self.boundary = boundary
        self.categories = self.ground_truth.categories
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self.per_class: PerClass = {}
        # For each image, the (truth, prediction) pairs that occur and their counts: far fewer than C x C.
        self._pairs: dict[Hashable, tuple[np.ndarray, np.ndarray]] = {}
        self._boundaries: dict[Hashable, np.ndarray] = {}
        self.confusion = np.zeros((len(self.categories),) * 2, np.int64)

    def process(self, samples: Sequence[Sample], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Counts the pixels of each image.

        Raises:
            ValueError: the ground truth has a different size, or the output has no semantic segmentation or
                the wrong number of classes.
        """
        for sample, output in zip(samples, outputs, strict=True):
            if "sem_seg" not in output:
                raise ValueError(missing_output("sem_seg", self))
            predicted = self._labels(output["sem_seg"])
            truth = self.ground_truth.read(sample)
            image_id = image_id_of(sample)
            if truth.shape != predicted.shape:
                raise ValueError(
                    f"image {image_id}: the prediction's size (height, width) is {predicted.shape}, "
                    f"the ground truth's {truth.shape}"
                )
            counts = count_pixels(truth, predicted, len(self.categories)).ravel()
            pairs = np.flatnonzero(counts)
            self._pairs[image_id] = pairs, counts[pairs]
            if self.boundary:
                self._boundaries[image_id] = boundary_counts(truth, predicted, len(self.categories))

    def evaluate(self) -> dict[str, float]:
        """Metrics named ``semantic/mIoU``, ... over the images of all processes."""
        per_image = merge_by_image(self._pairs)
        if missing := len(self.ground_truth) - len(per_image):
            logger.warning("%s: %d of its images were not evaluated", self.segments, missing)
        classes = len(self.categories)
        confusion = np.zeros(classes * classes, np.int64)
        for pairs, counts in per_image.values():
            confusion[pairs] += counts
        self.confusion = confusion.reshape(classes, classes)
        metrics, ious = semantic_metrics(self.confusion)
        labels = class_labels(self.categories)
        self.per_class = {"semantic/IoU": dict(zip(labels, ious.tolist(), strict=True))}
        if self.boundary:
            counts = sum(merge_by_image(self._boundaries).values(), np.zeros((classes, 2), np.int64))
            ious = 100 * _ratio(counts[:, 0].astype(float), counts[:, 1])
            metrics["boundary_mIoU"] = _mean(ious[~np.isnan(ious)])
            self.per_class["semantic/boundary_IoU"] = dict(zip(labels, ious.tolist(), strict=True))
        return {f"semantic/{name}": value for name, value in metrics.items()}

    def metric_names(self) -> list[str]:
        """Names of the metrics that :meth:`evaluate` returns."""
        names = ["mIoU", "fwIoU", "mean_accuracy", "pixel_accuracy"]
        return [f"semantic/{name}" for name in [*names, *(["boundary_mIoU"] if self.boundary else [])]]

    def _labels(self, scores: Tensor) -> np.ndarray:
        classes = len(self.categories)
        if scores.ndim == 3 and len(scores) != classes:
            raise ValueError(
                f"sem_seg has {len(scores)} classes, but the evaluation is over {classes}: set "
                "model.num_classes to the data's count"
            )
        # Small integers, because the map of a large image takes long to leave a GPU.
        small = torch.uint8 if classes <= 256 else torch.int16
        return class_map(scores).to(small).cpu().numpy()


def count_pixels(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion matrix of one image.

    Args:
        truth: (H, W) int64 class indices; -1 for pixels that do not count.
        predicted: (H, W) integer class indices.
        num_classes: C.

    Returns:
        (C, C) int64, rows are the ground truth's classes.
    """
    labelled = truth != IGNORED
    pairs = truth[labelled] * num_classes + predicted[labelled]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def boundary_counts(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Intersection and union of the boundaries of each class in one image (arXiv 2103.16562).

    Args:
        truth: (H, W) int64 class indices; -1 for pixels that do not count.
        predicted: (H, W) integer class indices.
        num_classes: C.

    Returns:
        (C, 2) int64.
    """
    width = boundary_width((truth.shape[0], truth.shape[1]))
    labelled = truth != IGNORED
    there = label_boundary(truth, width) & labelled
    found = label_boundary(predicted.astype(np.int64), width) & labelled
    both = there & found & (truth == predicted)
    inside, of_truth, of_found = (
        np.bincount(classes[chosen].astype(np.int64), minlength=num_classes)
        for classes, chosen in ((truth, both), (truth, there), (predicted, found))
    )
    return np.stack([inside, of_truth + of_found - inside], 1)


def semantic_metrics(confusion: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Metrics of :class:`SemanticEvaluator` and IoUs per class, in percent, from a (C, C) confusion matrix.

    Returns:
        Metrics by name, and (C,) float64 IoUs, NaN for classes that occur nowhere.
    """
    correct, truth, predicted = np.diag(confusion).astype(float), confusion.sum(1), confusion.sum(0)
    iou = 100 * _ratio(correct, truth + predicted - correct)
    accuracy = 100 * _ratio(correct, truth)
    present = truth > 0
    pixels = float(truth.sum())
    metrics = {
        "mIoU": _mean(iou[~np.isnan(iou)]),
        "fwIoU": float(_ratio((truth * iou)[present].sum(), pixels)),
        "mean_accuracy": _mean(accuracy[present]),
        "pixel_accuracy": float(100 * _ratio(correct.sum(), pixels)),
    }
    return metrics, iou


def _ratio(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray:
    """``part / whole``, or NaN where ``whole`` is 0."""
    return np.divide(part, np.where(np.equal(whole, 0), np.nan, whole))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _categories(classes: str | Path | Sequence[str] | Categories) -> Categories:
    if isinstance(classes, Categories):
        return classes
    if isinstance(classes, (str, Path)):
        return read_categories(classes)
    return parse_categories(list(classes), "classes")
