"""Draws the results of a model beside the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from PIL import Image
from torch import nn

from detrex.data.image_dataset import Record
from detrex.evaluation import evaluation_mode
from detrex.evaluation.per_image import Rating, rate
from detrex.structures import Categories, Sample, Targets, class_map
from detrex.visualization import draw_instances, draw_panoptic, draw_semantic, draw_targets, image_grid

_CELL = 384


@dataclass(frozen=True)
class RatedImage:
    """An image of a data set, with a rating of its results.

    Attributes:
        name: of its file.
        rating: of its results.
        picture: ground truth and results side by side.
    """

    name: str
    rating: Rating
    picture: Image.Image


class AnnotatedImages(Protocol):
    """A data set whose records have the original image and ``targets`` in its frame."""

    categories: Categories

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, index: int) -> Record:
        """The record of the image at this index."""


class ResultPictures:
    """Draws images of a data set: ground truth and, beside it, the kinds of results.

    Args:
        model: afterwards in the same mode as before.
        dataset: with the images.
        mapper: turns records into samples for evaluation.
        categories: the model's classes, which may differ from the data set's.
        score_thresholds: for the instances drawn and rated, one for each of the model's classes.
        note: description of the thresholds, for the title of the pictures.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: AnnotatedImages,
        mapper: Callable[[Record], Sample],
        categories: Categories,
        score_thresholds: Sequence[float],
        note: str = "",
    ):
        self._model = model
        self._dataset = dataset
        self._mapper = mapper
        self._categories = categories
        self._score_thresholds = torch.tensor(score_thresholds)
        self._title = f"instances, scores {note}" if note else "instances"

    def grid(self, count: int) -> Image.Image:
        """``count`` images, one per row, evenly spread over the data set."""
        columns: dict[str, None] = {}
        rows = []
        for index in spread(len(self._dataset), count):
            record = self._dataset[index]
            row = self._row(record, self._results(record))
            columns.update(dict.fromkeys(row))
            rows.append(list(row.values()))
        return image_grid(rows, titles=list(columns), cell_size=_CELL)

    def extremes(self, rated: int, count: int) -> tuple[list[RatedImage], list[RatedImage]]:
        """The images with the best and with the worst results, each list with the most extreme first.

        Args:
            rated: number of images to rate, evenly spread over the data set.
            count: number of images in each list; no image is in both.

        Returns:
            Two lists, which are empty if results cannot be compared with the ground truth.
        """
        ratings = {}
        for index in spread(len(self._dataset), rated):
            record = self._dataset[index]
            if (rating := self._rate(record, self._results(record))) is not None:
                ratings[index] = rating
        order = sorted(ratings, key=lambda index: ratings[index].order)
        count = min(count, -(-len(order) // 2))
        best = order[::-1][:count]
        worst = [index for index in order[:count] if index not in best]
        return [self._draw_rated(i, ratings[i]) for i in best], [
            self._draw_rated(i, ratings[i]) for i in worst
        ]

    def _draw_rated(self, index: int, rating: Rating) -> RatedImage:
        record = self._dataset[index]
        row = self._row(record, self._results(record))
        picture = image_grid([list(row.values())], titles=list(row), cell_size=_CELL)
        return RatedImage(record["file_name"], rating, picture)

    def _results(self, record: Record) -> dict[str, Any]:
        with evaluation_mode(self._model):
            results = self._model([self._mapper(record)])[0]
        if "instances" in results:
            found = results["instances"].to("cpu")
            shown = found.scores >= self._score_thresholds[found.pred_classes]
            results = {**results, "instances": found[shown]}
        return results

    def _rate(self, record: Record, results: dict[str, Any]) -> Rating | None:
        targets = _with_classes(record["targets"], self._dataset.categories, self._categories)
        return rate(targets, results, len(self._categories), 0.0)

    def _row(self, record: Record, results: dict[str, Any]) -> dict[str, Image.Image]:
        """Pictures by column title."""
        image, categories = record["image"], self._categories
        row = {"ground truth": draw_targets(image, record["targets"], self._dataset.categories)}
        if "instances" in results:
            row[self._title] = draw_instances(image, results["instances"], categories, 0.0)
        if "panoptic_seg" in results:
            row["panoptic"] = draw_panoptic(image, results["panoptic_seg"], categories)
        if "sem_seg" in results:
            row["semantic"] = draw_semantic(image, class_map(results["sem_seg"]), categories)
        return row


def spread(length: int, count: int) -> list[int]:
    """``count`` evenly spread numbers below ``length``; all of them if there are fewer."""
    count = min(count, length)
    return [i * length // count for i in range(count)]


def _with_classes(targets: Targets, given: Categories, wanted: Categories) -> Targets:
    """``targets`` with the class indices of ``wanted``; objects of other classes are left out."""
    if given.ids == wanted.ids:
        return targets
    indices: Sequence[int] = [wanted.index_of.get(category_id, -1) for category_id in given.ids]
    labels = torch.tensor(indices)[targets.labels]
    return replace(targets, labels=labels)[labels >= 0]
