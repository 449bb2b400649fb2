"""Whole runs: from a config to a trained and evaluated model."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from torch import nn

from detrex.checkpoint import Checkpointer, load_weights
from detrex.config import fix_values, instantiate
from detrex.engine.artifacts import checkpoint_metadata, save_run_files
from detrex.engine.compilation import compile_modules
from detrex.engine.distributed import distribute
from detrex.engine.ema import build_average, chosen_weights, evaluate_chosen, read_average
from detrex.engine.evaluation import Evaluation, build_evaluation
from detrex.engine.hooks import Hook, ProgressHook
from detrex.engine.hooks.build import build_eval_hook, build_log_hook, build_profiler_hooks, build_writers
from detrex.engine.interruption import InterruptionHook
from detrex.engine.launch import readable_errors
from detrex.engine.lengths import images_per_step, in_iterations
from detrex.engine.log import run_logging
from detrex.engine.optimizer import scale_learning_rates
from detrex.engine.report import save_report
from detrex.engine.saving import CheckpointHook
from detrex.engine.setup import (
    CHECKPOINTS,
    build_model,
    check_class_count,
    load_for_evaluation,
    load_initial,
    make_room,
    prepare_device,
    read_last,
    read_resumed,
)
from detrex.engine.trainer import Trainer
from detrex.runtime.distributed import barrier, is_main_process, rank, world_size
from detrex.runtime.random_state import seed_everything
from detrex.structures import Categories

logger = logging.getLogger(__name__)


def main(
    config: DictConfig,
    eval_only: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    debug: bool = False,
) -> dict[str, float]:
    """Trains and evaluates, or only evaluates, with log files and readable errors.

    Args:
        config: with ``model``, ``dataloader``, ``optimizer``, ``scheduler`` and ``train``.
        eval_only: evaluate ``train.init_checkpoint`` or, with ``resume``, the last checkpoint of the run.
        resume: go on from the last checkpoint in ``train.output_dir``, if there is one.
        overwrite: delete an earlier run in ``train.output_dir``.
        debug: let errors pass with their traceback.

    Returns:
        The figures of the last evaluation, empty if the config evaluates nothing.

    Raises:
        SystemExit: with code 1, after an error that is the user's to solve has been logged.
    """
    with readable_errors(debug):
        output_dir = Path(config.train.output_dir)
        if not (eval_only or resume) and is_main_process():
            make_room(output_dir, overwrite)
        barrier()
        with run_logging(output_dir) as console, readable_errors(debug):
            if eval_only:
                return do_eval(config, resume)
            return do_train(config, resume, console)


def do_eval(config: DictConfig, resume: bool = False) -> dict[str, float]:
    """Evaluates ``train.init_checkpoint`` or, with ``resume``, the run's last checkpoint.

    Returns:
        The figures, which are also written to ``results.json`` with pictures beside them.

    Raises:
        CheckpointError: there are no weights, or they do not fit the model.
    """
    seed_everything(config.train.seed + rank())
    device = prepare_device(config.train)
    model = build_model(config.model, device)
    evaluation = build_evaluation(config, model)
    if evaluation is None:
        return {}
    compile_modules(model, **config.train.compile)
    checkpoint = read_last(Checkpointer(Path(config.train.output_dir) / CHECKPOINTS)) if resume else None
    categories = load_for_evaluation(model, config, checkpoint, evaluation.categories)
    average = read_average(model, config.train.ema, checkpoint)
    evaluate_chosen(evaluation, average, config.train.ema.evaluate)
    with chosen_weights(average, config.train.ema.evaluate):
        evaluation.report(categories)
    if is_main_process():
        save_report(config, device, evaluation)
    return evaluation.metrics


def do_train(config: DictConfig, resume: bool = False, console: Console | None = None) -> dict[str, float]:
    """Trains as the config says, evaluates on the way and at the end, and saves what belongs to the run.

    Args:
        config: see :func:`main`.
        resume: go on from the last checkpoint in ``train.output_dir``, if there is one.
        console: shows a progress bar, if it is a terminal.

    Returns:
        The figures of the last evaluation.
    """
    output_dir = Path(config.train.output_dir)
    device = prepare_device(config.train)
    seed_everything(config.train.seed + rank())
    loader = instantiate(config.dataloader.train)
    # After the data, which says best what is wrong with its files.
    config = in_iterations(fix_values(config, "model"), loader)
    train = config.train
    categories = getattr(getattr(loader, "dataset", None), "categories", None)
    model = build_model(config.model, device)
    _log_size(model, device)
    _log_batch(config)
    check_class_count(model, categories)
    checkpointer = Checkpointer(output_dir / CHECKPOINTS, train.checkpoint.keep)
    checkpoint = read_resumed(checkpointer, config) if resume else None
    if checkpoint is not None:
        load_weights(model, checkpoint.weights, strict=True, source=checkpoint.path)
    elif train.init_checkpoint:
        load_initial(model, config, categories)
    if is_main_process():
        save_run_files(output_dir, config, categories, device)
    trainer = _build_trainer(config, model, loader)
    evaluation = build_evaluation(config, model)
    saving = CheckpointHook(
        checkpointer, train.checkpoint.period, checkpoint_metadata(config, categories), output_dir
    )
    trainer.hooks = _build_hooks(config, trainer, checkpointer, saving, evaluation, categories)
    if console is not None and console.is_terminal and is_main_process():
        trainer.hooks.append(ProgressHook(console))
    trainer.hooks.append(InterruptionHook(saving))
    if checkpoint is not None:
        trainer.load_state(checkpoint)
        logger.info("going on after iteration %d of %s", trainer.iteration, checkpoint.path)
    trainer.train()
    if evaluation is not None:
        with chosen_weights(trainer.average, train.ema.evaluate):
            evaluation.report(categories)
    if is_main_process():
        save_report(config, device, evaluation)
    saving.check()
    return {} if evaluation is None else evaluation.metrics


def _build_trainer(config: DictConfig, model: nn.Module, loader) -> Trainer:
    train = config.train
    compile_modules(model, **train.compile)
    distributed = distribute(
        model, **train.distributed, accumulation=train.accumulation, amp=train.amp, averaged=train.ema.enabled
    )
    optimizer = instantiate(config.optimizer, model=model)
    scale_learning_rates(optimizer, images_per_step=images_per_step(config), **train.lr_scaling)
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
        average=build_average(model, train.ema),
    )


def _log_batch(config: DictConfig) -> None:
    images = images_per_step(config)
    if images is not None:
        logger.info(
            "%d images per optimizer step: %d in a batch of all processes, train.accumulation=%d",
            images,
            config.dataloader.train.total_batch_size,
            config.train.accumulation,
        )


def _build_hooks(
    config: DictConfig,
    trainer: Trainer,
    checkpointer: Checkpointer,
    saving: CheckpointHook,
    evaluation: Evaluation | None,
    categories: Categories | None,
) -> list[Hook]:
    """Checkpoints come before evaluation, so that a failure of the latter loses nothing."""
    writers = build_writers(config)
    hooks: list[Hook] = [build_log_hook(config, writers), saving]
    if evaluation is not None:
        average, choice = trainer.average, config.train.ema.evaluate

        def draw() -> Image.Image | None:
            with chosen_weights(average, choice):
                return evaluation.draw(categories)

        evaluate = partial(evaluate_chosen, evaluation, average, choice)
        hooks.append(build_eval_hook(config, evaluate, draw, writers, saving, checkpointer))
    return [*hooks, *build_profiler_hooks(config)]


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
