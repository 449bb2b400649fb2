"""The progress display of a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from detrex.engine.hooks.base import Hook

if TYPE_CHECKING:
    from detrex.engine.trainer import Trainer


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
        figures = f"lr {metrics['lr']:.2g}  {metrics['step_time']:.3f} s/it" if metrics else ""
        if "loss" in metrics:  # not where all steps were left out
            figures = f"loss {metrics['loss']:.3f}  {figures}"
        self._progress.update(self._task, completed=trainer.iteration, figures=figures)

    def close(self) -> None:
        self._progress.stop()
