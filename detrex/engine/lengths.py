"""Lengths in epochs, for configs whose lengths are in iterations (optimizer steps)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence, Sized

from omegaconf import DictConfig, OmegaConf

from detrex.config import ConfigError, LazyCall, fix_values
from detrex.config.lazy import name_of
from detrex.config.walking import TARGET, dotted, is_node, walk

logger = logging.getLogger(__name__)


def epochs(number: float | Sequence[float]) -> DictConfig:
    """A number of epochs, or a list of numbers, where a config expects iterations.

    Examples: ``train.max_iter = epochs(12)``, ``scheduler.milestones = epochs([8, 11])``, ``train.eval_period
        =
    epochs(1)``. On the command line, ``train.max_iter.epochs=24`` changes the number, ``train.max_iter=1000``
    replaces it.
    """
    # Floats, so that the command line also takes fractions.
    number = float(number) if isinstance(number, int | float) else [float(n) for n in number]
    return LazyCall(iterations)(epochs=number, per_epoch="${train.iterations_per_epoch}")


def iterations(epochs: float | Sequence[float], per_epoch: float | None) -> int | list[int]:
    """Converts epochs, or each number in a list, to iterations, rounded.

    Args:
        epochs: not negative; may have a fraction.
        per_epoch: iterations in one epoch, set by :func:`in_iterations`.

    Raises:
        ConfigError: ``per_epoch`` is None, or a number is negative.
    """
    if per_epoch is None:
        raise ConfigError(
            "a length in epochs needs the size of the training data: set train.iterations_per_epoch where "
            "dataloader.train has no dataset with a length or no total_batch_size"
        )
    if isinstance(epochs, int | float):
        return _iterations(epochs, per_epoch)
    return [_iterations(number, per_epoch) for number in epochs]


def _iterations(epochs: float, per_epoch: float) -> int:
    if epochs < 0:
        raise ConfigError(f"a length cannot be {epochs} epochs")
    return max(1, round(epochs * per_epoch)) if epochs else 0


def images_per_step(config: DictConfig) -> int | None:
    """Images that one optimizer step sees, over all processes and accumulated batches; None if unknown."""
    batch_size = config.dataloader.train.get("total_batch_size")
    return batch_size and batch_size * config.train.accumulation


def in_iterations(config: DictConfig, loader: Iterable) -> DictConfig:
    """A copy of ``config`` with every length of ``train`` and ``scheduler`` in iterations; logs what changed.

    Args:
        config: the whole config. Its ``train.iterations_per_epoch`` counts; if that is None, the number
            follows from data and batch size, and may have a fraction, because one permutation of the images
            follows another.
        loader: of the training data.

    Raises:
        ConfigError: there are lengths in epochs, but the length of an epoch is not known.
    """
    given = config.train.iterations_per_epoch
    known = config.copy()
    known.train.iterations_per_epoch = _iterations_per_epoch(config, loader) if given is None else given
    fixed = fix_values(fix_values(known, "train"), "scheduler")
    fixed.train.iterations_per_epoch = given
    for keys, node in walk(OmegaConf.masked_copy(config, ["train", "scheduler"])):
        if is_node(node) and node[TARGET] == name_of(iterations):
            key = dotted(keys)
            logger.info("%s: %s epochs are %s iterations", key, node["epochs"], OmegaConf.select(fixed, key))
    _warn_of_unreached(fixed)
    return fixed


def _iterations_per_epoch(config: DictConfig, loader: Iterable) -> float | None:
    dataset, images = getattr(loader, "dataset", None), images_per_step(config)
    return len(dataset) / images if isinstance(dataset, Sized) and images else None


def _warn_of_unreached(config: DictConfig) -> None:
    length = config.train.max_iter
    warmup = config.scheduler.get("warmup_iters") or 0
    if warmup > length and config.scheduler.get("warmup_factor") != 1:
        logger.warning(
            "scheduler.warmup_iters=%d is longer than the run, train.max_iter=%d: the learning rate never "
            "reaches its full size",
            warmup,
            length,
        )
    late = [m for m in config.scheduler.get("milestones") or () if m >= length]
    if late:
        logger.warning(
            "scheduler.milestones %s come after the end of training, train.max_iter=%d", late, length
        )
