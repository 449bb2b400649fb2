"""Measures how many images a config's training loader delivers."""

from __future__ import annotations

import itertools
import time
from typing import Any

from omegaconf import DictConfig

from detrex.benchmark.timing import Spread
from detrex.config import ConfigError, instantiate


def measure_loading(config: DictConfig, images: int = 200, repeats: int = 5) -> dict[str, Any]:
    """Takes batches of ``config.dataloader.train`` as fast as they come.

    This measures the highest rate; in training, workers have more time and keep batches ready. The first
    batches, one for each worker and one more, are not counted.

    Args:
        config: a whole config.
        images: number in each repeat, rounded up to whole batches.
        repeats: one after another, without a pause.

    Returns:
        For JSON: images per second, with the settings that they depend on.

    Raises:
        ConfigError: the config has no ``dataloader.train``.
    """
    settings = (config.get("dataloader") or {}).get("train")
    if settings is None:
        raise ConfigError("the config has no 'dataloader.train' from which images could be loaded")
    loader = instantiate(settings)
    batches = iter(loader)
    workers = settings.get("num_workers", 0)
    batch_size = max(len(next(batches)) for _ in range(1 + workers))
    count = -(-images // batch_size)
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        loaded = sum(len(samples) for samples in itertools.islice(batches, count))
        rates.append(loaded / (time.perf_counter() - start))
    return {
        "images": len(loader.dataset),
        "batch_size": batch_size,
        "workers": workers,
        "images_per_second": Spread.from_values(rates).to_dict(),
    }
