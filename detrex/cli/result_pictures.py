"""Draws saved results beside the ground truth of a config's test data."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from detrex.cli.arguments import read_config
from detrex.cli.commands.view import DEFAULT_COUNT
from detrex.cli.gallery import Row, find_images, loader_config, save_gallery
from detrex.data import DataError, ImageDataset, Record
from detrex.engine.run_evaluation import build_dataset
from detrex.evaluation.per_image import match_instances, panoptic_map, panoptic_quality
from detrex.evaluation.saved_results import SavedInstances, SavedPanoptic, read_saved_results
from detrex.report.pictures import spread
from detrex.runtime.progress import with_progress
from detrex.structures import Instances, Targets
from detrex.visualization import draw_instances, draw_panoptic, draw_targets

logger = logging.getLogger(__name__)

PanopticSegments = tuple[Tensor, list[dict[str, int]]]


def draw_results(options: argparse.Namespace) -> int:
    """Runs the command, and returns the number of images that were drawn."""
    config = read_config(options)
    dataset = build_dataset(loader_config(config, "test"))
    results = read_saved_results(options.predictions, dataset.categories, dict(dataset.image_names()))
    labels = not options.no_labels
    comparison: InstanceComparison | PanopticComparison
    if isinstance(results, SavedPanoptic):
        comparison = PanopticComparison(results, dataset, labels)
    else:
        comparison = InstanceComparison(results, dataset, labels, options.score_threshold)
    there = images_to_compare(results, dataset)
    chosen = find_images(dataset, options.image_id, options.file_name)
    indices = there if chosen is None else chosen
    count = options.count or (DEFAULT_COUNT if chosen is None else len(indices))
    if options.worst:
        indices = worst_first(comparison, indices, count)
    else:
        indices = [indices[i] for i in spread(len(indices), count)]
    save_gallery(indices, comparison.draw, ["ground truth", "results"], options.output, options.grid)
    return len(indices)


class InstanceComparison:
    """Compares boxes and masks with the things in the ground truth."""

    def __init__(self, results: SavedInstances, dataset: ImageDataset, labels: bool, score_threshold: float):
        self._results, self._dataset = results, dataset
        self._labels, self._threshold = labels, score_threshold

    def quality(self, index: int) -> float:
        """The quality of the results for an image, in [0, 1]."""
        return match_instances(*self._read(self._dataset[index])).f1

    def draw(self, index: int) -> Row:
        """Ground truth and results of an image."""
        record = self._dataset[index]
        targets, found = self._read(record)
        matches = match_instances(targets, found)
        kind = "mask" if found.has("pred_masks") and targets.masks is not None else "box"
        caption = (
            f"F1 {matches.f1:.1%} at {kind} IoU 0.5: {matches.right} right, {matches.wrong} wrong, "
            f"{matches.missed} missed; scores from {self._threshold:g}"
        )
        truth = draw_targets(record["image"], targets, self._dataset.categories, labels=self._labels)
        results = draw_instances(
            record["image"],
            found,
            self._dataset.categories,
            score_threshold=self._threshold,
            max_detections=len(found),
            labels=self._labels,
        )
        return _row(record, caption, [truth, results])

    def _read(self, record: Record) -> tuple[Targets, Instances]:
        found = self._results.read(record["image_id"], record["height"], record["width"])
        targets = record["targets"]
        return targets[targets.is_thing], found[found.scores >= self._threshold]


class PanopticComparison:
    """Compares panoptic segments with those of the ground truth."""

    def __init__(self, results: SavedPanoptic, dataset: ImageDataset, labels: bool):
        self._results, self._dataset, self._labels = results, dataset, labels

    def quality(self, index: int) -> float:
        """The quality of the result for an image, in [0, 1]."""
        return panoptic_quality(*self._read(self._dataset[index]), len(self._dataset.categories))

    def draw(self, index: int) -> Row:
        """Ground truth and result of an image."""
        record = self._dataset[index]
        both = self._read(record)
        value = panoptic_quality(*both, len(self._dataset.categories))
        pictures = [
            draw_panoptic(record["image"], segments, self._dataset.categories, labels=self._labels)
            for segments in both
        ]
        return _row(record, f"PQ {value:.1%}, the mean of the classes in the image", pictures)

    def _read(self, record: Record) -> tuple[PanopticSegments, PanopticSegments]:
        if record["targets"].masks is None:
            raise DataError("panoptic results need ground truth with masks, but the data set has boxes only")
        found = self._results.read(record["image_id"], record["height"], record["width"])
        return panoptic_map(record["targets"]), found


def images_to_compare(results: SavedInstances | SavedPanoptic, dataset: ImageDataset) -> list[int]:
    """Indices of the images to choose from; warns about images that only results or data set have.

    Raises:
        DataError: no result belongs to an image of the data set.
    """
    ids = [image_id for image_id, _ in dataset.image_names()]
    known, found = set(ids), set(results.image_ids)
    strangers = [i for i in results.image_ids if i not in known]
    if found and len(strangers) == len(found):
        raise DataError(
            f"{results.path}: none of its {len(found)} images ({_some(strangers)}) is in the data set of "
            f"{dataset.images} ({_some(ids)}). Were the results made for another data set?"
        )
    bare = [i for i in ids if i not in found]
    panoptic = isinstance(results, SavedPanoptic)
    without = "they are left out" if panoptic else "they are taken as without detections"
    for images, text in (
        (strangers, "have results, but are not in the data set: they are left out"),
        (bare, f"of the data set have no results: {without}"),
    ):
        if images:
            logger.warning("%s: %d images %s (%s)", results.path, len(images), text, _some(images))
    return [k for k, image_id in enumerate(ids) if image_id in found or not panoptic]


def worst_first(
    comparison: InstanceComparison | PanopticComparison, indices: Sequence[int], count: int
) -> list[int]:
    """All images that cannot be read, followed by the ``count`` images with the worst results."""
    qualities: dict[int, float] = {}
    broken = []
    for index in with_progress(indices, "measuring"):
        try:
            qualities[index] = comparison.quality(index)
        except (DataError, OSError):  # drawing it will report the error
            broken.append(index)
    return broken + sorted(qualities, key=qualities.__getitem__)[:count]


def _row(record: Record, caption: str, pictures: list[Image.Image]) -> Row:
    name = record["file_name"]
    return Row(name, f"{name} (image id {record['image_id']})\n{caption}", pictures)


def _some(ids: Sequence) -> str:
    return "image ids " + ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
