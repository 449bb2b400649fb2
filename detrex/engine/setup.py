"""Preparing a run: its folder, its device, its first weights."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex.checkpoint import (
    CHECKPOINTS,
    FINAL_AVERAGE,
    FINAL_WEIGHTS,
    Checkpoint,
    Checkpointer,
    CheckpointError,
    WeightsFile,
    load,
    read_source,
)
from detrex.config import ConfigError, instantiate
from detrex.layers import use_onednn
from detrex.runtime.allocation import keep_freed_memory
from detrex.runtime.device import resolve_device, set_tf32
from detrex.runtime.distributed import all_gather_objects
from detrex.structures import Categories

logger = logging.getLogger(__name__)

METRICS, EVALUATIONS, REPORT, PROFILES = "metrics.jsonl", "evaluations.json", "report.html", "profile"
_FILES = (
    "log.txt",
    METRICS,
    EVALUATIONS,
    REPORT,
    "results.json",
    "predictions.png",
    FINAL_WEIGHTS,
    FINAL_AVERAGE,
    "wandb_id.txt",
)
_FOLDERS = (CHECKPOINTS, "nonfinite", PROFILES, "tensorboard", "wandb")


def make_room(output_dir: Path, overwrite: bool) -> None:
    """Sees to it that a new run does not mix with an earlier one in the same folder.

    Args:
        output_dir: of the new run.
        overwrite: delete what an earlier run wrote; other files in the folder stay.

    Raises:
        FileExistsError: there are checkpoints of an earlier run, and ``overwrite`` is not given.
    """
    if overwrite:
        for name in _FILES:
            (output_dir / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(output_dir / name, ignore_errors=True)
    elif Checkpointer(output_dir / CHECKPOINTS).paths():
        raise FileExistsError(
            f"{output_dir} holds the checkpoints of an earlier run: give --resume to go on with it, "
            "--overwrite to delete it, or another train.output_dir"
        )


def prepare_device(train: DictConfig) -> torch.device:
    """``train.device``, with ``train.tf32`` and ``train.keep_memory`` set for this process.

    Raises:
        ValueError: there is no such device.
    """
    device = resolve_device(train.device)
    set_tf32(train.tf32)
    if train.keep_memory and device.type == "cpu":
        keep_freed_memory()
    return device


def build_model(node: DictConfig, device: torch.device) -> nn.Module:
    """The model that a config describes, on its device, with the layers that are fastest there."""
    model: nn.Module = instantiate(node).to(device)
    if device.type == "cpu":
        use_onednn(model)
    return model


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


def _warn_of_changes(before: DictConfig, now: DictConfig) -> None:
    old, new = (dict(_leaves(OmegaConf.to_container(c))) for c in (before, now))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if changed:
        shown = "\n".join(f"  {key}: {old.get(key)} -> {new.get(key)}" for key in changed)
        logger.warning(
            "the config differs from the checkpoint's (what optimizer.* sets comes from the checkpoint):\n%s",
            shown,
        )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if items is None:
        yield path, value
        return
    for key, item in items:
        yield from _leaves(item, f"{path}.{key}" if path else str(key))
