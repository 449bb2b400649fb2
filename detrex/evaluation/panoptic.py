"""Panoptic quality of a model's panoptic segmentations."""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from detrex.data.file_names import AS_LISTED, check_name
from detrex.data.image_io import Orientation
from detrex.evaluation.classes import check_class_indices, missing_output
from detrex.evaluation.gather import image_id_of, merge_by_image, on_main_process
from detrex.evaluation.panoptic_files import PanopticFiles
from detrex.evaluation.panoptic_quality import Segmentation, count_matches, quality
from detrex.evaluation.report import PerClass, class_labels
from detrex.structures import Categories, Sample, class_map
from detrex.structures.panoptic import rgb_from_ids

logger = logging.getLogger(__name__)

_METRICS = ("PQ", "SQ", "RQ")


class PanopticEvaluator:
    """PQ, SQ and RQ (arXiv 1801.00868) of ``outputs["panoptic_seg"]``, over the images that were processed.

    Metrics, in percent: ``panoptic/PQ``, ``SQ`` and ``RQ`` as means over classes, and the same with
    ``_things`` and ``_stuff``. Classes that occur neither in ground truth nor in predictions are left out of
    the means; a metric without any class is NaN. For rules about void and crowds, see
    :func:`detrex.evaluation.panoptic_quality.count_matches`.

    Args:
        annotations: COCO panoptic JSON of the ground truth.
        segments: folder of its PNGs.
        classes: the model's classes, if they are not the categories of ``annotations`` ordered by id: the
            annotation file that it was trained on, or its categories.
        output_dir: folder for predictions in COCO panoptic format: ``panoptic_results.json`` and
            ``panoptic_results/*.png``; None for none.
        images: folder of the images, for sizes that ``annotations`` does not list.
        file_names, orientation, leave_folder: of the data set, see :class:`detrex.data.CocoPanoptic`.
        from_semantic: whether to take segments from ``outputs["sem_seg"]``, for purely semantic models. Each
            class of stuff is one segment, and so is each connected region of a thing with at least
            ``least_area`` pixels.
        least_area: see ``from_semantic``.
    """

    def __init__(
        self,
        annotations: str | Path,
        segments: str | Path,
        classes: str | Path | Categories | None = None,
        output_dir: str | Path | None = None,
        images: str | Path | None = None,
        file_names: str = AS_LISTED,
        orientation: Orientation = "auto",
        leave_folder: bool = False,
        from_semantic: bool = False,
        least_area: int = 64,
    ) -> None:
        self.from_semantic, self.least_area = from_semantic, least_area
        self.ground_truth = PanopticFiles(
            annotations, segments, classes, images, file_names, orientation, leave_folder
        )
        self.categories = self.ground_truth.categories
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self.per_class: PerClass = {}
        # For each image, only the classes that occur and their counts: these are few of many.
        self._counts: dict[Hashable, tuple[np.ndarray, np.ndarray]] = {}
        self._written: dict[Hashable, dict[str, Any]] = {}

    def process(self, samples: Sequence[Sample], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Matches the segments of each image with the ground truth.

        Raises:
            ValueError: an image is not in the annotation file, or has a different size there; or the output
                has no panoptic segmentation, or its segmentation contradicts its list of segments.
        """
        for sample, output in zip(samples, outputs, strict=True):
            image_id = image_id_of(sample)
            key = "sem_seg" if self.from_semantic else "panoptic_seg"
            if key not in output:
                raise ValueError(missing_output(key, self))
            ids, infos = (
                segments_of(output[key], self.categories, self.least_area)
                if self.from_semantic
                else output[key]
            )
            check_class_indices([info["category_id"] for info in infos], len(self.categories))
            ids = ids.cpu().numpy()
            prediction = self._prediction(image_id, ids, infos)
            truth = self.ground_truth.read(image_id)
            if truth.ids.shape != ids.shape:
                raise ValueError(
                    f"image {image_id}: the prediction's size (height, width) is {ids.shape}, but "
                    f"{self.ground_truth.file_name(image_id)} is of size {truth.ids.shape}"
                )
            counts = count_matches(truth, prediction, len(self.categories))
            classes = np.flatnonzero(counts.any(1))
            self._counts[image_id] = classes, counts[classes]
            if self.output_dir is not None:
                self._written[image_id] = self._write(self.output_dir, image_id, ids, infos)

    def evaluate(self) -> dict[str, float]:
        """Metrics named ``panoptic/PQ``, ``panoptic/PQ_things``, ... over the images of all processes."""
        metrics, self.per_class = self._metrics(merge_by_image(self._counts))
        written = merge_by_image(self._written)
        if (folder := self.output_dir) is not None:
            on_main_process(lambda: _write_json(folder, written))
        return metrics

    def metric_names(self) -> list[str]:
        """Names of the metrics that :meth:`evaluate` returns."""
        return [f"panoptic/{name}{group}" for group in ("", "_things", "_stuff") for name in _METRICS]

    def _prediction(self, image_id: Hashable, ids: np.ndarray, infos: list[dict[str, Any]]) -> Segmentation:
        try:
            return Segmentation.from_lists(ids, [(info["id"], info["category_id"], False) for info in infos])
        except ValueError as error:
            raise ValueError(f"image {image_id}: inconsistent panoptic_seg: {error}") from error

    def _metrics(self, per_image: dict) -> tuple[dict[str, float], PerClass]:
        if missing := len(self.ground_truth) - len(per_image):
            logger.warning("%s: %d of its images were not evaluated", self.ground_truth.annotations, missing)
        counts = np.zeros((len(self.categories), 4))
        # In a fixed order, so that sums do not depend on the distribution of images over processes.
        for image_id in sorted(per_image, key=str):
            classes, rows = per_image[image_id]
            counts[classes] += rows
        values = 100 * quality(counts)  # (C, 3)
        things = np.array(self.categories.is_thing, bool)
        groups = {"": np.ones_like(things), "_things": things, "_stuff": ~things}
        metrics = {
            f"panoptic/{metric}{suffix}": _mean(values[members, column])
            for suffix, members in groups.items()
            for column, metric in enumerate(_METRICS)
        }
        labels = class_labels(self.categories)
        per_class = {
            f"panoptic/{metric}": dict(zip(labels, values[:, column].tolist(), strict=True))
            for column, metric in enumerate(_METRICS)
        }
        return metrics, per_class

    def _write(
        self, folder: Path, image_id: Hashable, ids: np.ndarray, infos: list[dict[str, Any]]
    ) -> dict[str, Any]:
        name = self.ground_truth.file_name(image_id)
        check_name(
            name, f"{self.ground_truth.annotations}: image id {image_id}, whose result is to be written,"
        )
        path = folder / "panoptic_results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb_from_ids(ids)).save(path)
        segments = [
            {"id": int(info["id"]), "category_id": self.categories.ids[info["category_id"]]} for info in infos
        ]
        return {"image_id": image_id, "file_name": name, "segments_info": segments}


def segments_of(
    scores: Tensor, categories: Categories, least_area: int
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Panoptic segments of a semantic result.

    Args:
        scores: (C, H, W) scores of the classes.
        categories: the classes.
        least_area: in pixels; smaller connected regions of things are void.

    Returns:
        (H, W) int32 segment ids, 0 for void; and ``id`` and ``category_id`` (class index) of each.
    """
    labels = class_map(scores).cpu().numpy()
    ids = np.zeros(labels.shape, np.int32)
    infos: list[dict[str, Any]] = []
    for label in np.unique(labels).tolist():
        regions = (labels == label).astype(np.int32)
        count = 1
        if categories.is_thing[label]:
            regions, count = ndimage.label(regions)
        areas = np.bincount(regions.ravel(), minlength=count + 1)
        for region in range(1, count + 1):
            if not categories.is_thing[label] or areas[region] >= least_area:
                infos.append({"id": len(infos) + 1, "category_id": label})
                ids[regions == region] = len(infos)
    return torch.from_numpy(ids), infos


def _write_json(folder: Path, written: dict[Hashable, dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"annotations": list(written.values())}
    (folder / "panoptic_results.json").write_text(json.dumps(content), encoding="utf-8")


def _mean(values: np.ndarray) -> float:
    """Mean of the entries that are not NaN; NaN if there are none."""
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if measured.size else float("nan")
