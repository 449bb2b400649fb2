"""Measures how long a config's evaluators take, without the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from detrex.benchmark.model import random_ellipses
from detrex.benchmark.timing import Spread
from detrex.config import ConfigError, instantiate
from detrex.evaluation import Evaluator
from detrex.structures import Categories, Instances, Sample

SEGMENT_ROWS, SEGMENT_COLUMNS = 4, 5
SEMANTIC_STRIDE = 16
_THOUSAND = 1000


def measure_evaluation(
    config: DictConfig, images: int = 50, detections: int = 100, repeats: int = 3
) -> dict[str, Any]:
    """Times every evaluator of ``config.dataloader`` with made-up results for the first test images.

    There are results of all tasks: ellipses as instances, a grid of panoptic segments, and random semantic
    scores. They are on the CPU, so neither the transfer from a GPU nor reading images is included.

    Args:
        config: a whole config.
        images: number of images; fewer if there are fewer.
        detections: instances in every image.
        repeats: of the whole measurement.

    Returns:
        For JSON: seconds per 1000 images by evaluator, in ``process`` (image by image) and ``evaluate`` (at
        the end, scaled as if it grew with the number of images).

    Raises:
        ConfigError: the config has no test data set or no evaluators.
    """
    loaders = config.get("dataloader")
    if loaders is None or not (loaders.get("test") and loaders.get("evaluators")):
        raise ConfigError("the config has no 'dataloader.test' or no 'dataloader.evaluators' to measure")
    dataset = instantiate(loaders.test.dataset)
    evaluators = _by_name(instantiate(loaders.evaluators))
    images = min(images, len(dataset))
    seconds = [_once(dataset, evaluators, images, detections) for _ in range(repeats)]
    return {
        "images": images,
        "detections": detections,
        "seconds_per_1000_images": {
            name: {
                phase: Spread.from_values([_THOUSAND / images * s[name, phase] for s in seconds]).to_dict()
                for phase in ("process", "evaluate")
            }
            for name in evaluators
        },
    }


def _by_name(evaluators: Any) -> dict[str, Evaluator]:
    if isinstance(evaluators, Mapping):
        return dict(evaluators)
    return {type(evaluator).__name__: evaluator for evaluator in evaluators}


def _once(
    dataset: Any, evaluators: dict[str, Evaluator], images: int, detections: int
) -> dict[tuple[str, str], float]:
    seconds = {(name, phase): 0.0 for name in evaluators for phase in ("process", "evaluate")}
    for evaluator in evaluators.values():
        evaluator.reset()
    for sample, output in _results(dataset, images, detections):
        for name, evaluator in evaluators.items():
            start = time.perf_counter()
            evaluator.process([sample], [output])
            seconds[name, "process"] += time.perf_counter() - start
    for name, evaluator in evaluators.items():
        start = time.perf_counter()
        evaluator.evaluate()
        seconds[name, "evaluate"] = time.perf_counter() - start
    return seconds


def _results(dataset: Any, images: int, detections: int) -> Iterator[tuple[Sample, dict[str, Any]]]:
    """Samples without pixels, and possible results of a model for them."""
    generator = torch.Generator().manual_seed(0)
    for index, (image_id, file_name) in zip(range(images), dataset.image_names(), strict=False):
        height, width = size = dataset.image_size(index)
        sample = Sample(image_id=image_id, file_name=file_name, height=height, width=width)
        yield (
            sample,
            {
                "instances": _instances(detections, dataset.categories, size, generator),
                "panoptic_seg": _segments(dataset.categories, size),
                "sem_seg": _scores(len(dataset.categories), size, generator),
            },
        )


def _instances(
    count: int, categories: Categories, size: tuple[int, int], generator: torch.Generator
) -> Instances:
    boxes, masks = random_ellipses(count, size, generator)
    scores = torch.rand(count, generator=generator).sort(descending=True).values
    things = torch.tensor(categories.thing_classes or range(len(categories)))
    labels = things[torch.randint(len(things), (count,), generator=generator)]
    return Instances(size, boxes, scores, labels, masks)


def _segments(categories: Categories, size: tuple[int, int]) -> tuple[Tensor, list[dict[str, Any]]]:
    """Segments in a grid, whose classes take turns."""
    height, width = size
    rows = torch.arange(height) * SEGMENT_ROWS // height
    columns = torch.arange(width) * SEGMENT_COLUMNS // width
    ids = (1 + SEGMENT_COLUMNS * rows[:, None] + columns).int()
    segments = []
    for number in ids.unique().tolist():
        label = number % len(categories)
        thing = categories.is_thing[label]
        segments.append({"id": number, "category_id": label, "isthing": thing, "score": 0.5})
    return ids, segments


def _scores(classes: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    coarse = [-(-side // SEMANTIC_STRIDE) for side in size]
    scores = torch.rand(1, classes, *coarse, generator=generator)
    return torch.nn.functional.interpolate(scores, size)[0]
