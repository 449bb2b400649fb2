"""COCO average precision of boxes and masks, by pycocotools or faster-coco-eval."""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_convert

from detrex.data.census import ObjectCounts
from detrex.data.coco.objects import CocoFile
from detrex.data.coco.reader import ReadOptions
from detrex.data.errors import DataError
from detrex.data.image_io import Orientation
from detrex.evaluation.analysis import DetectionAnalysis, analyse
from detrex.evaluation.boundary import BoundaryEval
from detrex.evaluation.classes import check_class_indices, missing_output, model_categories
from detrex.evaluation.coco_ground_truth import coco_from, ground_truth_of, logged_prints
from detrex.evaluation.entries import examples_of, match_entries
from detrex.evaluation.gather import image_id_of, merge_by_image, on_main_process
from detrex.evaluation.report import PerClass, class_labels
from detrex.evaluation.thresholds import BestThreshold
from detrex.structures import Categories, Instances, Sample

logger = logging.getLogger(__name__)

_IOU_50, _IOU_75 = 0, 5  # COCOeval's thresholds run from 0.5 to 0.95 in steps of 0.05
_AREAS = {"": 0, "s": 1, "m": 2, "l": 3}  # all, small, medium, large
PYCOCOTOOLS, FASTER = "pycocotools", "faster-coco-eval"


def _faster_coco_eval() -> Any:
    """The library faster-coco-eval.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import faster_coco_eval
    except ImportError as error:
        raise ImportError(f"backend='{FASTER}' takes this package: pip install {FASTER}") from error
    return faster_coco_eval


class CocoEvaluator:
    """COCO's AP of ``outputs["instances"]``, over the images that were processed.

    Metrics, in percent, for each task: ``AP`` (IoU 0.5 to 0.95), ``AP50``, ``AP75``, ``APs``, ``APm``,
    ``APl`` (small: an area below 32 x 32 pixels, large: above 96 x 96) and ``AR`` (average recall); NaN if no
    ground truth qualifies.

    Args:
        annotations: COCO instance file of the ground truth.
        tasks: one or more of ``"bbox"``, ``"segm"`` and ``"boundary"`` (masks whose outlines have to fit,
            too, see :class:`detrex.evaluation.boundary.BoundaryEval`).
        classes: the model's classes, if they are not the categories of ``annotations`` ordered by id: the
            annotation file that it was trained on, or its categories. Detections of classes that the ground
            truth does not have (stuff) are left out.
        max_detections: COCOeval's limit of detections per image and class. Raise it for crowded images.
        output_dir: folder for ``coco_instances_results.json``, in COCO's result format; None for none.
        images: folder of the images, for sizes that ``annotations`` does not list.
        orientation, leave_folder: of the data set, see :class:`detrex.data.CocoInstances`.
        analysis: whether to make an analysis, see :attr:`analysis`.
        backend: the library that matches and counts: ``pycocotools``, or ``faster-coco-eval`` (extra
            ``faster``), which gives the same metrics in less time. ``boundary`` is always this package's.

    Attributes:
        analysis: of the last evaluation: errors by kind, precision and recall, calibration and confusion, of
            masks if they are evaluated, else of boxes; None before the first one, or if it is not wanted.

    Raises:
        FileNotFoundError: there is no annotation file.
        DataError: the file has errors, all its objects are left out, or the model does not know its classes.
        ValueError: other arguments are wrong.
        ImportError: the backend is not installed.
    """

    def __init__(
        self,
        annotations: str | Path,
        tasks: Sequence[str] = ("bbox", "segm"),
        classes: str | Path | Categories | None = None,
        max_detections: int = 100,
        output_dir: str | Path | None = None,
        images: str | Path | None = None,
        orientation: Orientation = "auto",
        leave_folder: bool = False,
        analysis: bool = True,
        backend: str = PYCOCOTOOLS,
    ) -> None:
        if backend not in (PYCOCOTOOLS, FASTER):
            raise ValueError(f"backend={backend!r}: expected is '{PYCOCOTOOLS}' or '{FASTER}'")
        if backend == FASTER:
            _faster_coco_eval()  # to fail now, not after all images
        if not tasks or set(tasks) - {"bbox", "segm", "boundary"}:
            raise ValueError(f"tasks={list(tasks)}: expected are some of 'bbox', 'segm' and 'boundary'")
        if max_detections < 1:
            raise ValueError(f"max_detections={max_detections}: expected at least 1")
        self.annotations = annotations
        self.tasks = tuple(tasks)
        self._masks = bool({"segm", "boundary"} & set(tasks))
        self._analyses, self._backend = analysis, backend
        self.max_detections = max_detections
        self.output_dir = None if output_dir is None else Path(output_dir)
        options = ReadOptions(None if images is None else Path(images), orientation, leave_folder)
        self._file = CocoFile(Path(annotations), options)
        self._check_file()
        self._index_of: dict[Hashable, int] = {
            entry.image_id: index for index, entry in enumerate(self._file.images)
        }
        self.ground_truth = ground_truth_of(self._file, self._masks)
        self.categories = model_categories(classes, self._file.categories, annotations)
        evaluated = set(self.ground_truth.cats)
        self._evaluated_classes = torch.tensor([i in evaluated for i in self.categories.ids])
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self.per_class: PerClass = {}
        self.analysis: DetectionAnalysis | None = None
        self._detections: dict[Hashable, list[dict[str, Any]]] = {}

    def process(self, samples: Sequence[Sample], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Adds the instances of each image; masks become RLE.

        Raises:
            ValueError: an image is not in the annotation file, or has a different size there; or the output
                has no instances, has no masks although they are evaluated, or has classes that are not
                listed.
        """
        for sample, output in zip(samples, outputs, strict=True):
            image_id = image_id_of(sample)
            if "instances" not in output:
                raise ValueError(missing_output("instances", self))
            instances = output["instances"]
            self._check(image_id, instances)
            self._detections[image_id] = self._to_coco(image_id, instances)

    def evaluate(self) -> dict[str, float]:
        """Metrics named ``bbox/AP``, ``segm/AP50``, ... over the images of all processes."""
        detections = merge_by_image(self._detections)
        metrics, self.per_class, self.analysis = on_main_process(lambda: self._evaluate(detections))
        return metrics

    def score_thresholds(self) -> dict[int, BestThreshold]:
        """The scores with the largest F1 by category id, if they are known, after :meth:`evaluate`."""
        if self.analysis is None:
            return {}
        pairs = zip(sorted(self.ground_truth.cats), self.analysis.thresholds, strict=True)
        return {category_id: best for category_id, best in pairs if best is not None}

    def metric_names(self) -> list[str]:
        """Names of the metrics that :meth:`evaluate` returns."""
        sizes = [f"AP{size}" for size in _AREAS if size]
        return [f"{task}/{name}" for task in self.tasks for name in ("AP", "AP50", "AP75", *sizes, "AR")]

    def counts(self) -> ObjectCounts:
        """Counts of the objects to find."""
        return self._file.counts(self._masks)

    def _check_file(self) -> None:
        masks = self._masks
        self._file.require_objects(masks)
        for warning in self._file.warnings(masks):
            logger.warning("%s: %s", self.annotations, warning)
        counts = self.counts()
        if not counts.objects and (counts.crowds or counts.left_out):
            raise DataError(f"{self.annotations} has no object to evaluate: {counts.nothing_because()}.")

    def _check(self, image_id: Hashable, instances: Instances) -> None:
        index = self._index_of.get(image_id)
        if index is None:
            raise ValueError(
                f"image id {image_id!r} is not in {self.annotations}: "
                "the evaluator and the test data set must use the same annotation file"
            )
        size = tuple(self._file.sizes[index].tolist())
        if tuple(instances.image_size) != size:
            raise ValueError(
                f"image {image_id}: detections are in a frame of (height, width) "
                f"{tuple(instances.image_size)}, but {self.annotations} says {size}"
            )
        if self._masks and not instances.has("pred_masks"):
            raise ValueError("the model predicts no masks: evaluate it with tasks=['bbox']")
        check_class_indices(instances.pred_classes, len(self.categories))

    def _to_coco(self, image_id: Hashable, instances: Instances) -> list[dict[str, Any]]:
        evaluated = self._evaluated_classes.to(instances.pred_classes.device)
        instances = instances[evaluated[instances.pred_classes]]
        boxes = box_convert(instances.pred_boxes, "xyxy", "xywh").double()
        numbers = torch.cat([boxes, instances.scores[:, None], instances.pred_classes[:, None]], 1).tolist()
        rles: list[Any] = [None] * len(numbers)
        if self._masks and (masks := instances.masks) is not None:
            rles = masks.to_coco()
        return [
            {
                "image_id": image_id,
                "category_id": self.categories.ids[int(label)],
                "bbox": box,
                "score": score,
                **({} if rle is None else {"segmentation": rle}),
            }
            for (*box, score, label), rle in zip(numbers, rles, strict=True)
        ]

    def _evaluate(
        self, detections: dict[Hashable, list]
    ) -> tuple[dict[str, float], PerClass, DetectionAnalysis | None]:
        if missing := len(self._index_of) - len(detections):
            logger.warning("%s: %d of its images were not evaluated", self.annotations, missing)
        if self.output_dir is not None:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            results = [detection for image in detections.values() for detection in image]
            (self.output_dir / "coco_instances_results.json").write_text(json.dumps(results))
        detections = {image_id: self._counted(image_id, found) for image_id, found in detections.items()}
        results = [detection for image in detections.values() for detection in image]
        metrics: dict[str, float] = {}
        per_class: PerClass = {}
        for task in self.tasks:
            indices = [self._index_of[image_id] for image_id in detections]
            accumulated = self._accumulate(task, results, indices)
            metrics.update({f"{task}/{name}": v for name, v in self._metrics(accumulated).items()})
            per_class[f"{task}/AP"] = self._ap_per_class(accumulated["precision"])
        return metrics, per_class, self._analyse(detections) if self._analyses else None

    def _counted(self, image_id: Hashable, detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The detections of an image that count."""
        del image_id  # used by subclasses whose annotated classes depend on the image
        return detections

    def _analyse(self, detections: Mapping[Hashable, list[dict[str, Any]]]) -> DetectionAnalysis:
        key = "segmentation" if self._masks else "bbox"
        ids = sorted(self.ground_truth.cats)
        labels = dict(zip(self.categories.ids, class_labels(self.categories), strict=True))
        index_of = {category_id: k for k, category_id in enumerate(ids)}
        matches, examples = [], []
        for image_id, found in detections.items():
            objects = self.ground_truth.imgToAnns[self._index_of[image_id]]
            best = sorted(found, key=lambda d: -d["score"])[: self.max_detections]
            matched = match_entries(image_id, best, objects, key, index_of)
            matches.append(matched)
            examples += examples_of(matched, best, objects, key)
        task = "segm" if self._masks else "bbox"
        return analyse(task, [labels[i] for i in ids], matches, examples)

    def _accumulate(self, task: str, results: list[dict], images: list[int]) -> dict[str, np.ndarray]:
        """COCOeval's precision (T, R, K, A, 1) and recall (T, K, A, 1); -1 without ground truth."""
        faster = self._backend == FASTER and task != "boundary"
        evaluation = (self._faster_evaluation if faster else self._evaluation)(task, results, images)
        with logged_prints():
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation.eval

    def _faster_evaluation(self, task: str, results: list[dict], images: list[int]) -> Any:
        library = _faster_coco_eval()
        # Copies, because the library adds entries.
        truth, found = (
            library.COCO({**coco.dataset, "annotations": [dict(a) for a in coco.dataset["annotations"]]})
            for coco in (self.ground_truth, self._detected(task, results))
        )
        evaluation = library.COCOeval_faster(truth, found, task, print_function=logger.debug)
        evaluation.params.imgIds = images
        evaluation.params.maxDets = [self.max_detections]
        return evaluation

    def _evaluation(self, task: str, results: list[dict], images: list[int]) -> COCOeval:
        found = self._detected(task, results)
        if task == "boundary":
            evaluation = BoundaryEval(self.ground_truth, found)
        else:
            evaluation = COCOeval(self.ground_truth, found, task)
        evaluation.params.imgIds = images
        evaluation.params.maxDets = [self.max_detections]
        return evaluation

    def _metrics(self, accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
        precision, recall = accumulated["precision"], accumulated["recall"]
        return {
            "AP": mean_percent(precision[..., 0, :]),
            "AP50": mean_percent(precision[_IOU_50, ..., 0, :]),
            "AP75": mean_percent(precision[_IOU_75, ..., 0, :]),
            **{f"AP{size}": mean_percent(precision[..., a, :]) for size, a in _AREAS.items() if size},
            "AR": mean_percent(recall[..., 0, :]),
        }

    def _detected(self, task: str, results: list[dict]) -> COCO:
        if not results:
            return coco_from({**self.ground_truth.dataset, "annotations": []})
        # The area of the box decides the size class of boxes, that of the mask the size class of masks.
        # loadRes uses whichever is there.
        unused = "segmentation" if task == "bbox" else "bbox"
        with logged_prints():
            return self.ground_truth.loadRes(
                [
                    {**{k: v for k, v in r.items() if k != unused}, "image_id": self._index_of[r["image_id"]]}
                    for r in results
                ]
            )

    def _ap_per_class(self, precision: np.ndarray) -> dict[str, float]:
        labels = dict(zip(self.categories.ids, class_labels(self.categories), strict=True))
        return {
            labels[category_id]: mean_percent(precision[:, :, k, 0])
            for k, category_id in enumerate(sorted(self.ground_truth.cats))
        }


def mean_percent(values: np.ndarray) -> float:
    """Mean in percent of the entries that COCOeval could measure (others are -1); NaN if there are none."""
    measured = values[values > -1]
    return 100 * float(measured.mean()) if measured.size else float("nan")
