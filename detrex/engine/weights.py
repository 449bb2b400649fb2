"""Loads the weights from which a run starts or continues, or which it evaluates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from omegaconf import DictConfig
from torch import nn

from detrex.checkpoint import (
    Checkpoint,
    Checkpointer,
    CheckpointError,
    WeightsFile,
    load_pretrained,
    read_source,
)
from detrex.config import ConfigError
from detrex.config.untrusted import parse_untrusted
from detrex.config.walking import dotted, walk
from detrex.modeling.text import TextDetector
from detrex.runtime.distributed import all_gather_objects
from detrex.structures import Categories

logger = logging.getLogger(__name__)


def check_class_count(model: nn.Module, categories: Categories | None) -> None:
    """Compares ``model.num_classes``, if the model has it, with the classes of its training data.

    Raises:
        ConfigError: they differ. With too few classes, training would fail at some image; with too many, the
            evaluation after it.
    """
    count = getattr(model, "num_classes", None)
    if categories is not None and count is not None and count != len(categories):
        raise ConfigError(
            f"model.num_classes is {count}, but the training data has {len(categories)} classes: set "
            f"model.num_classes={len(categories)}"
        )


Started = TypeVar("Started")


def start_from_newest(
    checkpointer: Checkpointer, start: Callable[[Checkpoint], Started]
) -> tuple[Checkpoint, Started] | None:
    """The newest usable checkpoint, and the result of ``start`` for it; None if there are no checkpoints.

    A damaged checkpoint is named in a warning, and the one before it is tried. Call it on all processes,
    which use the same checkpoint.

    Args:
        checkpointer: of the run.
        start: raises CheckpointError if a checkpoint cannot be used; it may be called several times.

    Raises:
        CheckpointError: there are checkpoints, but none can be used, or the processes find different ones.
    """
    paths = checkpointer.candidates()
    found = all_gather_objects([path.name for path in paths])
    if any(names != found[0] for names in found):
        raise CheckpointError(
            f"the processes find different checkpoints in {checkpointer.directory} (the newest: "
            f"{[names[0] if names else None for names in found]}); train.output_dir must be a folder that "
            "all machines share"
        )
    reasons: list[str] = []
    for path in paths:
        checkpoint, reason = _attempt(lambda path=path: checkpointer.load(path))  # type: ignore[misc]
        if checkpoint is not None:
            started, reason = _attempt(lambda checkpoint=checkpoint: start(checkpoint))  # type: ignore[misc]
            if started is not None:
                return checkpoint, started
        reasons.append(reason)
        logger.warning("%s\nTrying the checkpoint before it.", reason)
    if reasons:
        raise CheckpointError(
            f"none of the {len(reasons)} checkpoints in {checkpointer.directory} can be used; of the newest: "
            f"{reasons[0]}"
        )
    return None


def _attempt(action: Callable[[], Started]) -> tuple[Started | None, str]:
    """The result of ``action`` on all processes, or None and the reason why it failed on one of them."""
    result, reason = None, ""
    try:
        result = action()
    except (CheckpointError, FileNotFoundError) as error:
        reason = str(error)
    reasons = [text for text in all_gather_objects(reason) if text]
    return (None, reasons[0]) if reasons else (result, "")


def warn_of_changes(checkpoint: Checkpoint, config: DictConfig) -> None:
    """Warns about differences between ``config`` and the config with which a checkpoint was written."""
    if "config" not in checkpoint.metadata:
        return
    try:
        before = parse_untrusted(checkpoint.metadata["config"], checkpoint.path)
    except ConfigError as error:
        logger.warning("%s", error)
        return
    old, new = (
        {dotted(keys): value for keys, value in walk(tree) if not isinstance(value, dict | list)}
        for tree in (before, config)
    )
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if changed:
        shown = "\n".join(f"  {key}: {old.get(key)} -> {new.get(key)}" for key in changed)
        logger.warning(
            "the config differs from the checkpoint's (what optimizer.* sets comes from the checkpoint):\n%s",
            shown,
        )


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
        The classes that the weights were trained on, if the file tells them, else ``categories``; for models
        that read words, ``categories`` come first.
    """
    source = config.train.init_checkpoint if checkpoint is None else checkpoint.path
    if not source:
        raise CheckpointError(
            "nothing to evaluate: give train.init_checkpoint=PATH, or --resume for the run's last checkpoint"
        )
    file = read_source(source, config.train.allow_pickle)
    load_pretrained(model, file, strict=True)
    if isinstance(model, TextDetector):  # its classes are words, whatever it was trained with
        return categories or file.categories
    warn_of_other_classes(file, categories)
    return file.categories or categories


def load_initial(model: nn.Module, config: DictConfig, categories: Categories | None) -> None:
    """Loads ``train.init_checkpoint``, from which training starts, as far as it fits."""
    file = read_source(config.train.init_checkpoint, config.train.allow_pickle)
    report = load_pretrained(model, file, categories=categories)
    if not report.kept_rows and not report.reinitialised:
        warn_of_other_classes(file, categories)


def warn_of_other_classes(file: WeightsFile, categories: Categories | None) -> None:
    """Warns if weights were trained with other classes, or the same in another order."""
    trained = file.categories
    if categories is not None and trained is not None and trained.names != categories.names:
        names = [list(listed.names) for listed in (trained, categories)]
        logger.warning("%s was trained with the classes %s, but the data has %s", file.path, *names)
