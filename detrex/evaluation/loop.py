"""Runs a model over a data set and measures its outputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import nn

from detrex.evaluation.report import PerClass
from detrex.runtime.distributed import world_size
from detrex.runtime.waiting import watched
from detrex.structures import Sample

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOGS = 10.0


class Evaluator(Protocol):
    """Measures the outputs of a model; see :func:`evaluate` for the order of calls.

    Attributes:
        per_class: metrics per class, filled by :meth:`evaluate` (empty before it).
    """

    per_class: PerClass

    def reset(self) -> None:
        """Forgets all images."""

    def process(self, samples: Sequence[Sample], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Adds the model's outputs for ``samples``; keeps nothing on their device."""

    def evaluate(self) -> dict[str, float]:
        """Metrics over the images of all processes, equal in each process.

        Keys are ``task/metric``. Percentages run from 0 to 100; NaN means that there was nothing to measure.
        """


def evaluate(
    model: nn.Module,
    loader: Iterable[Sequence[Sample]],
    evaluators: Mapping[str, Evaluator] | Sequence[Evaluator],
    max_images: int | None = None,
) -> dict[str, float]:
    """Runs ``model`` over ``loader`` in inference mode and returns the metrics of all evaluators.

    Afterwards, the model is in the same mode (training or evaluation) as before.

    Args:
        model: called with lists of samples; returns one output dictionary per sample.
        loader: batches of this process's share of the images.
        evaluators: any number of them; the keys of a mapping matter only for configs.
        max_images: stop after about so many images, counted over all processes.

    Raises:
        ValueError: ``max_images`` is below 1, the numbers of outputs and samples differ, or two evaluators
            return metrics of the same name.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images={max_images}: expected at least 1, or None for all")
    chosen = list(evaluators.values() if isinstance(evaluators, Mapping) else evaluators)
    for evaluator in chosen:
        evaluator.reset()
    with evaluation_mode(model):
        _process_images(model, loader, chosen, max_images)
    metrics: dict[str, float] = {}
    for evaluator in chosen:
        results = evaluator.evaluate()
        if twice := metrics.keys() & results.keys():
            raise ValueError(f"several evaluators return {sorted(twice)}: evaluate them one after another")
        metrics.update(results)
    return metrics


def collect_per_class(evaluators: Mapping[str, Evaluator] | Sequence[Evaluator]) -> PerClass:
    """The metrics per class of all evaluators, after :func:`evaluate`."""
    chosen = evaluators.values() if isinstance(evaluators, Mapping) else evaluators
    return {name: values for evaluator in chosen for name, values in evaluator.per_class.items()}


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts the model in evaluation mode, without gradients, inside the block; then restores its mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        # Module by module, because frozen parts (batch norm) may have been in evaluation mode already.
        for module, training in modes.items():
            module.training = training


def _process_images(model, loader, evaluators: list[Evaluator], max_images: int | None) -> None:
    limit = None if max_images is None else -(-max_images // world_size())
    batches = len(loader) if hasattr(loader, "__len__") else None
    start = last_log = time.perf_counter()
    images = 0
    for batch, samples in enumerate(watched(loader, "images to evaluate"), start=1):
        outputs = model(samples)
        if len(outputs) != len(samples):
            raise ValueError(f"the model returned {len(outputs)} outputs for {len(samples)} images")
        for evaluator in evaluators:
            evaluator.process(samples, outputs)
        images += len(samples)
        now = time.perf_counter()
        if now - last_log >= SECONDS_BETWEEN_LOGS:
            last_log = now
            logger.info(_progress(batch, batches, images, limit, now - start))
        if limit is not None and images >= limit:
            break
    seconds = time.perf_counter() - start
    each = f"{seconds / images:.3f} s/image" if images else "no images"
    logger.info("evaluated %d images in %s (%s)", images, _clock(seconds), each)


def _progress(batch: int, batches: int | None, images: int, limit: int | None, seconds: float) -> str:
    text = f"evaluation: {images} images, {seconds / images:.3f} s/image"
    shares = [batch / batches] if batches else []
    shares += [images / limit] if limit else []
    if not shares:
        return text
    share = min(1.0, max(shares))
    return f"{text}, {share:.0%}, ETA {_clock(seconds / share - seconds)}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
