"""The weights that a run starts from, goes on from or evaluates."""

from __future__ import annotations

import logging

from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from detrex.checkpoint import (
    Checkpoint,
    Checkpointer,
    CheckpointError,
    WeightsFile,
    load,
    read_source,
)
from detrex.config import ConfigError
from detrex.config.walking import dotted, walk
from detrex.runtime.distributed import all_gather_objects
from detrex.structures import Categories

logger = logging.getLogger(__name__)


def check_class_count(model: nn.Module, categories: Categories | None) -> None:
    """Compares ``model.num_classes``, where a model says it, with the classes of its training data.

    Raises:
        ConfigError: they differ. With fewer training would fail at some image; with more, only the
            evaluation after it.
    """
    count = getattr(model, "num_classes", None)
    if categories is not None and count is not None and count != len(categories):
        raise ConfigError(
            f"model.num_classes is {count}, but the training data has {len(categories)} classes: set "
            f"model.num_classes={len(categories)}"
        )


def read_resumed(checkpointer: Checkpointer, config: DictConfig) -> Checkpoint | None:
    """The checkpoint to go on from, or None, with a message, if the run has none yet.

    Raises:
        CheckpointError: none of them can be read, or the processes find different ones.
    """
    checkpoint = checkpointer.resume()
    found = all_gather_objects(None if checkpoint is None else checkpoint.iteration)
    if len(set(found)) > 1:
        raise CheckpointError(
            f"the processes find different checkpoints in {checkpointer.directory} (iterations {found}); "
            "train.output_dir must be a folder that all machines share"
        )
    if checkpoint is None:
        logger.info("no checkpoint in %s to resume from, starting anew", checkpointer.directory)
    elif "config" in checkpoint.metadata:
        _warn_of_changes(OmegaConf.create(checkpoint.metadata["config"]), config)
    return checkpoint


def read_last(checkpointer: Checkpointer) -> Checkpoint:
    """The newest readable checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    checkpoint = checkpointer.resume()
    if checkpoint is None:
        raise CheckpointError(f"there is no checkpoint in {checkpointer.directory} to evaluate")
    return checkpoint


def load_for_evaluation(
    model: nn.Module, config: DictConfig, checkpoint: Checkpoint | None, categories: Categories | None
) -> Categories | None:
    """Loads the weights to evaluate; everything must fit.

    Args:
        model: to load into.
        config: its ``train.init_checkpoint`` is read if no checkpoint is given.
        checkpoint: of a run.
        categories: of the test data.

    Raises:
        CheckpointError: there are no weights, or they do not fit the model.

    Returns:
        The classes that the weights were trained on, if the file says so, else ``categories``.
    """
    source = config.train.init_checkpoint if checkpoint is None else checkpoint.path
    if not source:
        raise CheckpointError(
            "nothing to evaluate: give train.init_checkpoint=PATH, or --resume for the run's last checkpoint"
        )
    file = read_source(source, config.train.allow_pickle)
    load(model, file, strict=True)
    warn_of_other_classes(file, categories)
    return file.categories or categories


def load_initial(model: nn.Module, config: DictConfig, categories: Categories | None) -> None:
    """Loads ``train.init_checkpoint``, from which training starts, as far as it fits."""
    file = read_source(config.train.init_checkpoint, config.train.allow_pickle)
    report = load(model, file, categories=categories)
    if not report.kept_rows and not report.reinitialised:
        warn_of_other_classes(file, categories)


def warn_of_other_classes(file: WeightsFile, categories: Categories | None) -> None:
    """Warns if weights were trained with other classes, or the same in another order."""
    trained = file.categories
    if categories is not None and trained is not None and trained.names != categories.names:
        names = [list(one.names) for one in (trained, categories)]
        logger.warning("%s was trained with the classes %s, but the data has %s", file.path, *names)


def _warn_of_changes(before: DictConfig | ListConfig, now: DictConfig) -> None:
    old, new = (
        {dotted(keys): value for keys, value in walk(config) if not isinstance(value, dict | list)}
        for config in (before, now)
    )
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if changed:
        shown = "\n".join(f"  {key}: {old.get(key)} -> {new.get(key)}" for key in changed)
        logger.warning(
            "the config differs from the checkpoint's (what optimizer.* sets comes from the checkpoint):\n%s",
            shown,
        )
