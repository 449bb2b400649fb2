"""A picture of what a model finds, beside what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from detrex.structures import Categories, Sample
from detrex.visualization import draw_instances, draw_panoptic, draw_semantic, draw_targets, image_grid

_CELL = 384


def save_pictures(
    path: str | Path,
    model: nn.Module,
    dataset: Dataset,
    mapper: Callable[[dict], Sample],
    categories: Categories,
    count: int = 8,
    score_threshold: float = 0.5,
) -> None:
    """Writes a grid with one image per row: ground truth and, in a column each, the kinds of results.

    Args:
        path: of the PNG file.
        model: is put into evaluation mode.
        dataset: with ``categories``; its records have the original image and ``targets`` in its frame.
        mapper: from records to samples for evaluation.
        categories: the model's classes, which may be others than the data set's.
        count: images, taken evenly over the data set.
        score_threshold: of the instances drawn.
    """
    model.eval()
    count = min(count, len(dataset))
    columns: dict[str, None] = {}
    rows = []
    for index in (i * len(dataset) // count for i in range(count)):
        record = dataset[index]
        truth = draw_targets(record["image"], record["targets"], dataset.categories)
        row = {"ground truth": truth, **_draw_results(model, record, mapper, categories, score_threshold)}
        columns.update(dict.fromkeys(row))
        rows.append(list(row.values()))
    image_grid(rows, titles=list(columns), cell_size=_CELL).save(path)


def _draw_results(
    model: nn.Module, record: dict, mapper: Callable, categories: Categories, score_threshold: float
) -> dict:
    """Pictures by the title of their column."""
    with torch.inference_mode():
        output = model([mapper(record)])[0]
    image = record["image"]
    row = {}
    if "instances" in output:
        row["instances"] = draw_instances(image, output["instances"], categories, score_threshold)
    if "panoptic_seg" in output:
        row["panoptic"] = draw_panoptic(image, output["panoptic_seg"], categories)
    if "sem_seg" in output:
        row["semantic"] = draw_semantic(image, output["sem_seg"].argmax(0), categories)
    return row
