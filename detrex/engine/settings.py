"""Checks numbers in ``train`` that would fail only when used, and applies settings of the process."""

from __future__ import annotations

import math

import torch
from omegaconf import DictConfig, OmegaConf

from detrex.runtime.allocation import keep_freed_memory
from detrex.runtime.device import resolve_device, set_tf32

# Keys below `train`, with the smallest and the largest value.
_RANGES: list[tuple[str, float, float]] = [
    ("max_iter", 1, math.inf),
    ("iterations_per_epoch", 1, math.inf),
    ("max_skipped_steps", 0, math.inf),
    ("process_timeout", 0, math.inf),
    ("eval_period", 0, math.inf),
    ("eval_beside.threads", 1, math.inf),
    ("checkpoint.period", 0, math.inf),
    ("profiler.start", 0, math.inf),
    ("profiler.stop", 0, math.inf),
    ("pictures.count", 0, math.inf),
    ("pictures.rated", 0, math.inf),
    ("pictures.extremes", 0, math.inf),
    ("pictures.score_threshold", 0, 1),
]


def check_numbers(train: DictConfig) -> None:
    """Checks that numbers are within their ranges.

    Args:
        train: node of a config, with lengths in iterations; missing or null entries are ignored.

    Raises:
        ValueError: a number is out of range; the message names every such setting, its value and the range.
    """
    wrong = []
    for key, smallest, largest in _RANGES:
        value = OmegaConf.select(train, key)
        if not isinstance(value, int | float):
            continue
        if not smallest <= value <= largest:
            limits = f"of at least {smallest}" if largest == math.inf else f"from {smallest} to {largest}"
            wrong.append(f"train.{key}={value}: expected a number {limits}")
    if wrong:
        raise ValueError("\n".join(wrong))


def prepare_device(train: DictConfig) -> torch.device:
    """Returns ``train.device``, and applies ``train.tf32`` and ``train.keep_memory`` to this process.

    Raises:
        ValueError: there is no such device.
    """
    device = resolve_device(train.device)
    set_tf32(train.tf32)
    if train.keep_memory and device.type == "cpu":
        keep_freed_memory()
    return device
