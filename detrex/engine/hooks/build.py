"""The hooks that a config asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from PIL import Image

from detrex.checkpoint import Checkpointer
from detrex.config import instantiate
from detrex.engine.hooks.early_stopping import EarlyStopping
from detrex.engine.hooks.evaluation import EvalHook
from detrex.engine.hooks.figures import gradient_norms, learning_rates, memory
from detrex.engine.hooks.goal import BestCheckpoint, Goal
from detrex.engine.hooks.history import EvaluationHistory
from detrex.engine.hooks.metrics import LogHook
from detrex.engine.hooks.profiler import ProfilerHook
from detrex.engine.saving import CheckpointHook
from detrex.engine.setup import EVALUATIONS, METRICS, PROFILES
from detrex.engine.writers import JsonLinesWriter, Writers
from detrex.runtime.distributed import is_main_process


def build_writers(config: DictConfig) -> Writers:
    """JSON lines and what ``train.writers`` enables, on the main process."""
    if not is_main_process():
        return Writers([])
    optional = [instantiate(entry.writer) for entry in config.train.writers.values() if entry.enabled]
    return Writers([JsonLinesWriter(Path(config.train.output_dir) / METRICS), *optional])


def build_log_hook(config: DictConfig, writers: Writers) -> LogHook:
    """Logs losses, learning rates, gradient norms and memory every ``train.log_period`` steps."""
    figures = [learning_rates, gradient_norms(config.train.clip_grad.norm_type), memory]
    return LogHook(config.train.log_period, writers, OmegaConf.to_container(config), figures)


def build_eval_hook(
    config: DictConfig,
    evaluate: Callable[[], dict[str, float]],
    draw: Callable[[], Image.Image | None],
    writers: Writers,
    saving: CheckpointHook,
    checkpointer: Checkpointer,
) -> EvalHook:
    """Evaluates every ``train.eval_period`` steps; keeps the best checkpoint and stops early if asked to.

    Raises:
        ValueError: a value of ``train.early_stopping`` or ``train.checkpoint`` is not allowed.
    """
    train = config.train
    best = stopping = None
    if (metric := train.checkpoint.best_metric) is not None:
        goal = Goal(metric, train.checkpoint.best_mode, "train.checkpoint.best_metric")
        best = BestCheckpoint(goal, saving, checkpointer)
    if (metric := train.early_stopping.metric) is not None:
        goal = Goal(metric, train.early_stopping.mode, "train.early_stopping.metric")
        stopping = EarlyStopping(goal, train.early_stopping.patience, train.early_stopping.min_delta)
    history = EvaluationHistory(Path(train.output_dir) / EVALUATIONS)
    return EvalHook(evaluate, train.eval_period, writers, history, saving, best, stopping, draw)


def build_profiler_hooks(config: DictConfig) -> list[ProfilerHook]:
    """None or one, as ``train.profiler`` says."""
    start, stop = config.train.profiler.start, config.train.profiler.stop
    if not start and not stop:
        return []
    return [ProfilerHook(start, stop, Path(config.train.output_dir) / PROFILES)]
