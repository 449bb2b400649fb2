"""What happens around training steps: logging, evaluation, the progress display."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from detrex.checkpoint import Checkpointer
from detrex.engine.log import METRICS_LOGGER
from detrex.engine.random_state import preserved_random_state
from detrex.engine.writers import Writers
from detrex.utils.distributed import all_gather_objects, barrier, is_main_process

if TYPE_CHECKING:
    from detrex.engine.saving import CheckpointHook
    from detrex.engine.trainer import Trainer

logger = logging.getLogger(__name__)


class Hook:
    """Called by the trainer on every process; a subclass fills in what it needs."""

    def before_train(self, trainer: Trainer) -> None:
        """Before the first step; a resumed trainer has its state already."""

    def before_step(self, trainer: Trainer) -> None:
        """Before every step; ``trainer.iteration`` steps are done."""

    def after_step(self, trainer: Trainer) -> None:
        """After every step, which ``trainer.iteration`` counts already."""

    def after_train(self, trainer: Trainer) -> None:
        """After the last step."""

    def close(self) -> None:
        """At the very end, after an error too."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""


class LogHook(Hook):
    """Every ``period`` steps: means since the last time, over all processes, to the log and the writers.

    Losses stay on their device in between.
    """

    def __init__(self, period: int, writers: Writers, config: Mapping[str, Any] | None = None):
        if period < 1:
            raise ValueError(f"train.log_period must be at least 1 iteration, not {period}")
        self._period = period
        self._writers = writers
        self._config = config or {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._log = logging.getLogger(METRICS_LOGGER)

    def before_train(self, trainer: Trainer) -> None:
        if is_main_process():
            self._writers.open(trainer.iteration, self._config)

    def after_step(self, trainer: Trainer) -> None:
        for name, value in self._values(trainer).items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        if trainer.iteration % self._period and trainer.iteration != trainer.max_iter:
            return
        means = self._means()
        trainer.metrics = {**means, "lr": trainer.lr, **_memory(trainer.device)}
        self._sums, self._counts = {}, {}
        if is_main_process():
            self._writers.write(trainer.iteration, trainer.metrics)
            self._log.info(_line(trainer))

    def close(self) -> None:
        if is_main_process():
            self._writers.close()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {name: value.cpu() for name, value in self._sums.items()}, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])

    @staticmethod
    def _values(trainer: Trainer) -> dict[str, Tensor]:
        losses = {name: loss.float() for name, loss in trainer.losses.items()}
        times = torch.tensor([trainer.data_time, trainer.step_time])
        return {
            "loss": torch.stack(list(losses.values())).sum(),
            **losses,
            "grad_norm": trainer.grad_norm.float(),
            "data_time": times[0],
            "step_time": times[1],
        }

    def _means(self) -> dict[str, float]:
        on_device = [name for name, value in self._sums.items() if value.device.type != "cpu"]
        moved = torch.stack([self._sums[n] for n in on_device]).tolist() if on_device else []
        read = dict(zip(on_device, moved, strict=True))
        own = {n: (read[n] if n in read else float(v), self._counts[n]) for n, v in self._sums.items()}
        # As objects, for processes may have met different losses (a batch without objects has fewer).
        everyone = all_gather_objects(own)
        names = dict.fromkeys(name for one in everyone for name in one)
        means = {}
        for name in names:
            pairs = [one[name] for one in everyone if name in one]
            means[name] = sum(total for total, _ in pairs) / sum(count for _, count in pairs)
        return means


class ProgressHook(Hook):
    """A progress bar with loss, learning rate, seconds per iteration and the time left, for terminals."""

    def __init__(self, console: Console):
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task("training", figures="")

    def before_train(self, trainer: Trainer) -> None:
        self._progress.update(self._task, total=trainer.max_iter, completed=trainer.iteration)
        self._progress.start()

    def after_step(self, trainer: Trainer) -> None:
        metrics = trainer.metrics
        figures = (
            f"loss {metrics['loss']:.3f}  lr {metrics['lr']:.2g}  {metrics['step_time']:.3f} s/it"
            if metrics
            else ""
        )
        self._progress.update(self._task, completed=trainer.iteration, figures=figures)

    def close(self) -> None:
        self._progress.stop()


class EvalHook(Hook):
    """Evaluates every ``period`` steps (0: only at the end) and at the end.

    If ``best_metric`` is given, the checkpoint with its largest value is kept for good.
    """

    def __init__(
        self,
        evaluate: Callable[[], dict[str, float]],
        period: int,
        writers: Writers,
        checkpoints: CheckpointHook | None = None,
        checkpointer: Checkpointer | None = None,
        best_metric: str | None = None,
    ):
        self._evaluate = evaluate
        self._period = period
        self._writers = writers
        self._checkpoints = checkpoints
        self._checkpointer = checkpointer
        self._best_metric = best_metric

    def after_step(self, trainer: Trainer) -> None:
        if self._period and trainer.iteration % self._period == 0 and trainer.iteration < trainer.max_iter:
            self._run(trainer)

    def after_train(self, trainer: Trainer) -> None:
        self._run(trainer)

    def _run(self, trainer: Trainer) -> None:
        start = time.perf_counter()
        with preserved_random_state():
            results = self._evaluate()
        logger.info(
            "evaluation after iteration %d took %.1f s", trainer.iteration, time.perf_counter() - start
        )
        if is_main_process():
            self._writers.write(trainer.iteration, results)
        if self._best_metric is not None:
            self._keep_best(trainer, self._best_metric, results)

    def _keep_best(self, trainer: Trainer, metric: str, results: dict[str, float]) -> None:
        if metric not in results:
            raise ValueError(
                f"train.checkpoint.best_metric is {metric!r}, but the evaluators return {', '.join(results)}"
            )
        value = results[metric]
        best = self._checkpointer.best()
        barrier()  # so that no process reads the marker after it was changed
        if math.isnan(value) or (best is not None and value <= best["value"]):
            return
        self._checkpoints.save(trainer)
        if is_main_process():
            self._checkpointer.mark_best(trainer.iteration, metric, value)
            logger.info("best %s so far: %.2f", metric, value)


def _memory(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {}
    return {"max_memory_mb": torch.cuda.max_memory_allocated(device) / 2**20}


def _line(trainer: Trainer) -> str:
    """The figures in one line; of losses like ``loss_ce``, ``loss_ce_0``, ``loss_ce_dn``, only the first."""
    metrics = trainer.metrics
    left = timedelta(seconds=round((trainer.max_iter - trainer.iteration) * metrics["step_time"]))
    apart = ("loss", "lr", "step_time", "data_time", "max_memory_mb")
    figures = [name for name in metrics if name not in apart]
    shown = [n for n in figures if not any(n.startswith(f"{other}_") for other in figures)]
    parts = "  ".join(f"{name} {metrics[name]:.4g}" for name in shown)
    memory = f"  {metrics['max_memory_mb']:.0f} MB" if "max_memory_mb" in metrics else ""
    return (
        f"iteration {trainer.iteration}/{trainer.max_iter}  eta {left}  loss {metrics['loss']:.4f}  {parts}  "
        f"lr {metrics['lr']:.3g}  {metrics['step_time']:.3f} s/it  data {metrics['data_time']:.3f} s{memory}"
    )
