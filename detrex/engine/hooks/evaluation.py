"""Evaluations during training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image

from detrex.engine.hooks.base import Hook
from detrex.engine.hooks.early_stopping import EarlyStopping
from detrex.engine.hooks.goal import BestCheckpoint
from detrex.engine.hooks.history import EvaluationHistory
from detrex.engine.writers import Writers
from detrex.runtime.distributed import all_gather_objects, is_main_process
from detrex.runtime.random_state import preserved_random_state

if TYPE_CHECKING:
    from detrex.engine.saving import CheckpointHook
    from detrex.engine.trainer import Trainer

logger = logging.getLogger(__name__)


class EvalHook(Hook):
    """Evaluates every ``period`` steps (0: only at the end) and at the end, and acts on the figures.

    Args:
        evaluate: called on all processes; returns the figures.
        period: in steps.
        writers: get the figures and, if a writer shows pictures, one.
        history: where figures are kept for resumed runs.
        checkpoints: saves one when training is stopped early.
        best: keeps the best checkpoint, if given.
        stopping: ends training early, if given.
        draw: makes a picture of results, on the main process alone; None where nothing can be drawn.
    """

    def __init__(
        self,
        evaluate: Callable[[], dict[str, float]],
        period: int,
        writers: Writers,
        history: EvaluationHistory,
        checkpoints: CheckpointHook,
        best: BestCheckpoint | None = None,
        stopping: EarlyStopping | None = None,
        draw: Callable[[], Image.Image | None] | None = None,
    ):
        self._evaluate = evaluate
        self._period = period
        self._writers = writers
        self._history = history
        self._checkpoints = checkpoints
        self._best = best
        self._stopping = stopping
        self._draw = draw
        self._evaluated: int | None = None  # by this process

    def before_train(self, trainer: Trainer) -> None:
        """Makes up for an evaluation that an earlier process was to do after it had saved the checkpoint."""
        self._history.restore(trainer.iteration)
        if self._is_due(trainer) and trainer.iteration not in self._history:
            self._run(trainer)
        self._stop_if_reached(trainer)

    def after_step(self, trainer: Trainer) -> None:
        # Who was asked to stop may have seconds left; the resumed run makes up for the evaluation.
        if self._is_due(trainer) and not trainer.stopping:
            self._run(trainer)
            self._stop_if_reached(trainer)

    def after_train(self, trainer: Trainer) -> None:
        if self._evaluated != trainer.iteration:
            self._run(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        done = trainer.iteration
        return self._period > 0 and done > 0 and done % self._period == 0 and done < trainer.max_iter

    def _run(self, trainer: Trainer) -> None:
        start = time.perf_counter()
        with preserved_random_state():
            # The main process's, so that all decide alike.
            results = all_gather_objects(self._evaluate())[0]
            self._evaluated = trainer.iteration
            logger.info(
                "evaluation after iteration %d took %.1f s", trainer.iteration, time.perf_counter() - start
            )
            if trainer.iteration in self._history:  # an ended run that was resumed; all of this has been done
                return
            if is_main_process():
                self._write(trainer.iteration, results)
        if self._best is not None:
            self._best.update(trainer, results, self._history)
        if self._stopping is not None:
            self._stopping.goal.value(results)  # is an error, if there is none
        self._history.add(trainer.iteration, results)

    def _write(self, iteration: int, results: dict[str, float]) -> None:
        self._writers.write(iteration, results)
        if self._draw is not None and self._writers.show_pictures:
            picture = self._draw()
            if picture is not None:
                self._writers.picture(iteration, "predictions", picture)

    def _stop_if_reached(self, trainer: Trainer) -> None:
        if self._stopping is None or trainer.iteration >= trainer.max_iter:
            return
        if self._stopping.reached(self._history):
            logger.info("training ends after iteration %d: %s", trainer.iteration, self._stopping)
            self._checkpoints.save(trainer)
            trainer.max_iter = trainer.iteration
