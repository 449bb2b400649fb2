"""Complete runs, from a config to a trained and evaluated model."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from detrex.checkpoint import (
    CHECKPOINTS,
    FINAL_AVERAGE,
    FINAL_WEIGHTS,
    Checkpoint,
    Checkpointer,
    CheckpointError,
    load_weights,
)
from detrex.config import fix_values, instantiate
from detrex.data.census import Census
from detrex.engine.beside import EvaluationProcess
from detrex.engine.data_checks import check_data
from detrex.engine.ema import WeightAverage, build_average, read_average
from detrex.engine.folder import (
    EVALUATIONS,
    METRICS,
    PROFILES,
    REPORT,
    checkpoint_metadata,
    describe_environment,
    save_run_files,
)
from detrex.engine.hooks import (
    BestCheckpoint,
    CheckpointHook,
    EarlyStopping,
    EvalHook,
    EvaluationHistory,
    Goal,
    Hook,
    LogHook,
    ProfilerHook,
    ProgressHook,
    gradient_norms,
    learning_rates,
    memory,
)
from detrex.engine.lengths import images_per_step, in_iterations
from detrex.engine.optimizer import scale_learning_rates
from detrex.engine.parallel import compile_modules, distribute
from detrex.engine.run_evaluation import Evaluation, build_evaluation
from detrex.engine.settings import check_numbers, prepare_device
from detrex.engine.thresholds import evaluates_folder, keep_thresholds
from detrex.engine.trainer import Trainer
from detrex.engine.weights import (
    check_class_count,
    load_for_evaluation,
    load_initial,
    start_from_newest,
    warn_of_changes,
)
from detrex.engine.writers import JsonLinesWriter, Writers
from detrex.modeling.build import build_model
from detrex.report import save_report
from detrex.runtime.distributed import is_main_process, rank, world_size
from detrex.runtime.random_state import seed_everything
from detrex.structures import Categories

logger = logging.getLogger(__name__)


def do_eval(config: DictConfig, resume: bool = False) -> dict[str, float]:
    """Evaluates ``train.init_checkpoint`` or, with ``resume``, the run's last checkpoint.

    Returns:
        The metrics, which are also written to ``results.json``, with pictures beside it.

    Raises:
        CheckpointError: there are no weights, or they do not fit the model.
    """
    output_dir = Path(config.train.output_dir)
    check_numbers(config.train)
    seed_everything(config.train.seed + rank())
    device = prepare_device(config.train)
    model = build_model(config.model, device)
    evaluation = build_evaluation(config, model)
    if evaluation is None:
        return {}
    census = check_data(model, validation=evaluation.dataset)
    compile_modules(model, **config.train.compile)

    def load(checkpoint: Checkpoint | None) -> _Loaded:
        categories = load_for_evaluation(model, config, checkpoint, evaluation.categories)
        return _Loaded(categories, read_average(model, config.train.ema, checkpoint))

    if resume:
        checkpointer = Checkpointer(output_dir / CHECKPOINTS)
        newest = start_from_newest(checkpointer, load)
        if newest is None:
            raise CheckpointError(f"there is no checkpoint in {checkpointer.directory} to evaluate")
        _, loaded = newest
    else:
        loaded = load(None)
    evaluation.average = loaded.average
    evaluation.run()
    evaluation.report(loaded.categories)
    if is_main_process() and not resume and evaluates_folder(config.train):
        keep_thresholds(output_dir / FINAL_WEIGHTS, evaluation.score_thresholds)
    _save_report(config, device, evaluation, census)
    return evaluation.metrics


@dataclass(frozen=True)
class _Loaded:
    """Facts about the weights to evaluate: the classes that they were trained on, and their average."""

    categories: Categories | None
    average: WeightAverage | None


def do_train(config: DictConfig, resume: bool = False, console: Console | None = None) -> dict[str, float]:
    """Trains as the config says, evaluates during training and at the end, and saves the files of the run.

    Args:
        config: see :func:`detrex.cli.train.main`.
        resume: continue from the last checkpoint in ``train.output_dir``, if there is one.
        console: shows a progress bar, if it is a terminal.

    Returns:
        The metrics of the last evaluation.
    """
    output_dir = Path(config.train.output_dir)
    device = prepare_device(config.train)
    seed_everything(config.train.seed + rank())
    loader = instantiate(config.dataloader.train)
    # After the data, whose errors describe best what is wrong with files.
    config = in_iterations(fix_values(config, "model"), loader)
    train = config.train
    check_numbers(train)
    categories = getattr(getattr(loader, "dataset", None), "categories", None)
    checkpointer = Checkpointer(output_dir / CHECKPOINTS, train.checkpoint.keep)

    def prepare(checkpoint: Checkpoint | None) -> _Prepared:
        return _prepare(config, loader, categories, checkpointer, checkpoint, device, console)

    resumed = start_from_newest(checkpointer, prepare) if resume else None
    if resume and resumed is None:
        logger.info("no checkpoint in %s to resume from, starting anew", checkpointer.directory)
    if resumed is not None:
        checkpoint, prepared = resumed
        warn_of_changes(checkpoint, config)
        logger.info("going on after iteration %d of %s", checkpoint.iteration, checkpoint.path)
    else:
        prepared = prepare(None)
    evaluation = prepared.evaluation
    census = check_data(
        prepared.trainer.model,
        getattr(loader, "dataset", None),
        None if evaluation is None else evaluation.dataset,
    )
    if is_main_process():
        save_run_files(output_dir, config, categories, device)
    prepared.trainer.train()
    if evaluation is not None:
        evaluation.report(categories)
        if is_main_process():
            name = FINAL_AVERAGE if evaluation.evaluates_average else FINAL_WEIGHTS
            keep_thresholds(output_dir / name, evaluation.score_thresholds)
    _save_report(config, device, evaluation, census)
    prepared.saving.check()
    return {} if evaluation is None else evaluation.metrics


@dataclass(frozen=True)
class _Prepared:
    """A run that is ready to train."""

    trainer: Trainer
    evaluation: Evaluation | None
    saving: CheckpointHook


def _prepare(
    config: DictConfig,
    loader: Iterable,
    categories: Categories | None,
    checkpointer: Checkpointer,
    checkpoint: Checkpoint | None,
    device: torch.device,
    console: Console | None,
) -> _Prepared:
    """
    Raises:
        CheckpointError: the checkpoint is damaged or does not fit the config.
    """
    train = config.train
    model = build_model(config.model, device)
    _log_size(model, device)
    _log_batch(config)
    check_class_count(model, categories)
    if checkpoint is not None:
        load_weights(model, checkpoint.weights, strict=True, source=checkpoint.path)
    elif train.init_checkpoint:
        load_initial(model, config, categories)
    trainer = _build_trainer(config, model, loader)
    evaluation = build_evaluation(config, model, trainer.average)
    saving = CheckpointHook(
        checkpointer, train.checkpoint.period, checkpoint_metadata(config, categories), Path(train.output_dir)
    )
    trainer.hooks = _build_hooks(config, saving, checkpointer, evaluation, categories, console)
    if checkpoint is not None:
        trainer.load_state(checkpoint)
    return _Prepared(trainer, evaluation, saving)


def _build_trainer(config: DictConfig, model: nn.Module, loader: Iterable) -> Trainer:
    train = config.train
    compile_modules(model, **train.compile)
    distributed = distribute(
        model, **train.distributed, accumulation=train.accumulation, amp=train.amp, averaged=train.ema.enabled
    )
    optimizer = instantiate(config.optimizer, model=model)
    scale_learning_rates(optimizer, images_per_step=images_per_step(config), **train.lr_scaling)
    average = build_average(model, train.ema)
    if average is not None:
        compile_modules(average.module, **train.compile)
    return Trainer(
        distributed,
        loader,
        optimizer,
        instantiate(config.scheduler, optimizer=optimizer),
        max_iter=train.max_iter,
        output_dir=train.output_dir,
        amp=train.amp,
        max_norm=train.clip_grad.max_norm,
        norm_type=train.clip_grad.norm_type,
        accumulation=train.accumulation,
        max_skipped_steps=train.max_skipped_steps,
        average=average,
    )


def _build_hooks(
    config: DictConfig,
    saving: CheckpointHook,
    checkpointer: Checkpointer,
    evaluation: Evaluation | None,
    categories: Categories | None,
    console: Console | None,
) -> list[Hook]:
    """The hooks that a config asks for, in their order.

    Checkpoints are saved before the evaluation, so that a failure of the evaluation loses nothing.

    Raises:
        ValueError: a value of the config is not allowed.
    """
    train = config.train
    writers = _build_writers(train)
    measures = [learning_rates, gradient_norms(train.clip_grad.norm_type), memory]
    content = cast(dict[str, Any], OmegaConf.to_container(config))
    hooks: list[Hook] = [LogHook(train.log_period, writers, content, measures), saving]
    if evaluation is not None:
        hooks.append(_build_eval_hook(config, writers, saving, checkpointer, evaluation, categories))
    if train.profiler.start or train.profiler.stop:
        directory = Path(train.output_dir) / PROFILES
        hooks.append(ProfilerHook(train.profiler.start, train.profiler.stop, directory))
    if console is not None and console.is_terminal and is_main_process():
        hooks.append(ProgressHook(console))
    return hooks


def _build_writers(train: DictConfig) -> Writers:
    """The writer of JSON lines and those that ``train.writers`` enables, on the main process."""
    if not is_main_process():
        return Writers([])
    optional = [instantiate(entry.writer) for entry in train.writers.values() if entry.enabled]
    return Writers([JsonLinesWriter(Path(train.output_dir) / METRICS), *optional])


def _build_eval_hook(
    config: DictConfig,
    writers: Writers,
    saving: CheckpointHook,
    checkpointer: Checkpointer,
    evaluation: Evaluation,
    categories: Categories | None,
) -> EvalHook:
    train = config.train
    best = stopping = None
    if (metric := train.checkpoint.best_metric) is not None:
        goal = Goal(metric, train.checkpoint.best_mode, "train.checkpoint.best_metric")
        best = BestCheckpoint(goal, saving, checkpointer)
    if (metric := train.early_stopping.metric) is not None:
        goal = Goal(metric, train.early_stopping.mode, "train.early_stopping.metric")
        stopping = EarlyStopping(goal, train.early_stopping.patience, train.early_stopping.min_delta)
    names = evaluation.metric_names()
    for watcher in (best, stopping):
        # Parts of the validation loss are known only with its first batch.
        if watcher is not None and names and not watcher.goal.metric.removeprefix("ema/").startswith("val/"):
            watcher.goal.check(names)
    history = EvaluationHistory(Path(train.output_dir) / EVALUATIONS)

    def draw():
        return evaluation.draw(categories)

    beside = EvaluationProcess(config) if train.eval_beside.enabled else None
    return EvalHook(evaluation.run, train.eval_period, writers, history, saving, best, stopping, draw, beside)


def _save_report(
    config: DictConfig, device: torch.device, evaluation: Evaluation | None, census: Census | None
) -> None:
    """Saves the page, on the main process; a failure is only a warning, because the run is complete."""
    if not is_main_process():
        return
    output_dir = Path(config.train.output_dir)
    try:
        save_report(
            output_dir / REPORT,
            output_dir / METRICS,
            OmegaConf.to_yaml(config),
            describe_environment(device),
            None if evaluation is None else evaluation.results,
            census,
        )
    except Exception as error:
        logger.warning("%s could not be made: %s: %s", output_dir / REPORT, type(error).__name__, error)
        logger.debug("the traceback of this error", exc_info=True)


def _log_batch(config: DictConfig) -> None:
    images = images_per_step(config)
    if images is not None:
        logger.info(
            "%d images per optimizer step: %d in a batch of all processes, train.accumulation=%d",
            images,
            config.dataloader.train.total_batch_size,
            config.train.accumulation,
        )


def _log_size(model: nn.Module, device: torch.device) -> None:
    parameters = list(model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    logger.info(
        "%s with %.1f M parameters, %.1f M of them trainable, on %d x %s",
        type(model).__name__,
        sum(p.numel() for p in parameters) / 1e6,
        trainable / 1e6,
        world_size(),
        device,
    )
