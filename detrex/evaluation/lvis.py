"""Average precision by the rules of LVIS (arXiv 1908.03195): each image has only some classes annotated."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detrex.data.coco.json_stream import stream_members
from detrex.data.errors import DataError
from detrex.data.formats import open_unpacked
from detrex.data.image_io import Orientation
from detrex.evaluation.coco import CocoEvaluator, mean_percent
from detrex.evaluation.coco_ground_truth import logged_prints
from detrex.structures import Categories

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


class LvisEvaluator(CocoEvaluator):
    """AP by the rules of LVIS v1, over the images that were processed.

    In each image, detections count only for classes that are annotated there: classes with objects, and
    classes that the file marks as absent. If the file says that not all objects of a class are annotated,
    wrong detections of that class are ignored. Metrics are those of :class:`CocoEvaluator`, and ``APr``,
    ``APc`` and ``APf`` over rare, common and frequent classes.

    Args:
        annotations: LVIS file of the ground truth.
        max_detections: largest number in an image, over all classes.
        tasks, classes, output_dir, images, orientation, leave_folder, analysis: see :class:`CocoEvaluator`.

    Raises:
        FileNotFoundError: there is no annotation file.
        DataError: the file is not in LVIS's format; see also :class:`CocoEvaluator`.
    """

    def __init__(
        self,
        annotations: str | Path,
        tasks: Sequence[str] = ("bbox", "segm"),
        classes: str | Path | Categories | None = None,
        max_detections: int = 300,
        output_dir: str | Path | None = None,
        images: str | Path | None = None,
        orientation: Orientation = "auto",
        leave_folder: bool = False,
        analysis: bool = True,
    ) -> None:
        self._frequency, self._absent, self._partly = read_federation(Path(annotations))
        super().__init__(
            annotations,
            tasks,
            classes,
            max_detections,
            output_dir,
            images,
            orientation,
            leave_folder,
            analysis,
        )

    def metric_names(self) -> list[str]:
        names = super().metric_names()
        return [*names, *(f"{task}/AP{letter}" for task in self.tasks for letter in FREQUENCIES)]

    def _counted(self, image_id: Hashable, detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The detections, among the best ones of an image, whose classes are annotated there."""
        best = sorted(detections, key=lambda d: -d["score"])[: self.max_detections]
        index = self._index_of[image_id]
        present = {a["category_id"] for a in self.ground_truth.imgToAnns[index]}
        annotated = present | self._absent.get(str(image_id), set())
        return [d for d in best if d["category_id"] in annotated]

    def _accumulate(self, task: str, results: list[dict], images: list[int]) -> dict[str, np.ndarray]:
        evaluation = self._evaluation(task, results, images)
        names = {index: str(image_id) for image_id, index in self._index_of.items()}
        with logged_prints():
            evaluation.evaluate()
            for result in evaluation.evalImgs:
                if result is not None and result["category_id"] in self._partly.get(
                    names[result["image_id"]], ()
                ):
                    result["dtIgnore"] = result["dtIgnore"].astype(bool) | (result["dtMatches"] == 0)
            evaluation.accumulate()
        return evaluation.eval

    def _metrics(self, accumulated: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = super()._metrics(accumulated)
        ids = sorted(self.ground_truth.cats)
        for letter in FREQUENCIES:
            chosen = [k for k, category_id in enumerate(ids) if self._frequency.get(category_id) == letter]
            found[f"AP{letter}"] = mean_percent(accumulated["precision"][:, :, chosen, 0])
        return found


Federation = tuple[dict[int, str], dict[str, set[int]], dict[str, set[int]]]


def read_federation(path: Path) -> Federation:
    """Reads what an LVIS file says in addition to COCO's format.

    Returns:
        The frequency of each category (``r``, ``c`` or ``f``); and, by image id as text, the categories that
        are annotated as absent, and those whose objects are not all annotated.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is not in LVIS's format.
    """
    frequency: dict[int, str] = {}
    absent: dict[str, set[int]] = {}
    partly: dict[str, set[int]] = {}
    with open_unpacked(path) as file:
        for key, value in stream_members(file):
            for entry in value if isinstance(value, Iterator) else ():
                if key == "categories" and isinstance(entry, Mapping):
                    frequency[entry.get("id", -1)] = str(entry.get("frequency", ""))
                if key == "images" and isinstance(entry, Mapping):
                    image = str(entry.get("id"))
                    absent[image] = set(entry.get("neg_category_ids") or ())
                    partly[image] = set(entry.get("not_exhaustive_category_ids") or ())
    if not any(frequency.values()) or not any(absent.values()):
        raise DataError(
            f"{path} is not a file of LVIS: its categories have no 'frequency', or its images no "
            "'neg_category_ids'. For COCO's files take CocoEvaluator."
        )
    return frequency, absent, partly
