"""Evaluations during training: their history, the best checkpoint, and early stopping."""

from __future__ import annotations

import difflib
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from detrex.checkpoint import Checkpointer
from detrex.engine.beside import EvaluationError, EvaluationProcess
from detrex.engine.hooks.checkpoints import CheckpointHook
from detrex.engine.hooks.hook import Hook, Training
from detrex.engine.writers import Writers
from detrex.evaluation import format_table
from detrex.runtime import interruption
from detrex.runtime.distributed import all_gather_objects, barrier, is_main_process
from detrex.runtime.files import replaced_file
from detrex.runtime.random_state import preserved_random_state

logger = logging.getLogger(__name__)


class EvaluationHistory:
    """Metrics by iteration, equal on all processes, in a JSON file from which a resumed run reads them.

    They are not part of checkpoints, because a checkpoint is saved before the evaluation at the same step, so
    that a failure of the evaluation loses nothing.
    """

    def __init__(self, path: Path):
        self._path = path
        self._metrics: dict[int, dict[str, float]] = {}

    def __contains__(self, iteration: int) -> bool:
        return iteration in self._metrics

    def restore(self, iteration: int) -> None:
        """Reads the metrics of evaluations up to ``iteration``; later evaluations will be repeated."""
        found = all_gather_objects(self._read() if is_main_process() else None)[0]
        self._metrics = {i: metrics for i, metrics in found.items() if i <= iteration}

    def add(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of an evaluation, also to the file."""
        self._metrics[iteration] = dict(metrics)
        if is_main_process():
            try:
                self._write()
            except OSError as error:
                logger.warning(
                    "%s cannot be written; only a resumed run would miss it: %s", self._path, error
                )

    def values(self, metric: str) -> list[float]:
        """All values of ``metric`` in order of iterations; NaN if it was not measured."""
        return [self._metrics[i].get(metric, math.nan) for i in sorted(self._metrics)]

    def _read(self) -> dict[int, dict[str, float]]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            return {
                int(entry["iteration"]): {
                    k: math.nan if v is None else float(v) for k, v in entry["metrics"].items()
                }
                for entry in entries
            }
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s is damaged (%s); earlier evaluations do not count", self._path, error)
            return {}

    def _write(self) -> None:
        entries = [
            {"iteration": i, "metrics": {k: v if math.isfinite(v) else None for k, v in metrics.items()}}
            for i, metrics in sorted(self._metrics.items())
        ]
        with replaced_file(self._path) as temporary:
            temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Goal:
    """A metric of evaluations, and whether large or small values are good.

    Attributes:
        metric: such as ``segm/AP``.
        mode: ``max`` if larger values are better, ``min`` if smaller ones are.
        source: the config key that names the metric, for messages.
    """

    metric: str
    mode: str
    source: str

    def __post_init__(self) -> None:
        if self.mode not in ("max", "min"):
            raise ValueError(f"the mode beside {self.source} must be max or min, not {self.mode!r}")

    def value(self, metrics: Mapping[str, float]) -> float:
        """The metric among those of an evaluation.

        Raises:
            ValueError: the evaluation does not have the metric.
        """
        self.check(list(metrics))
        return metrics[self.metric]

    def check(self, names: Sequence[str]) -> None:
        """
        Raises:
            ValueError: the metric is not among ``names``, which evaluations return.
        """
        if self.metric not in names:
            near = difflib.get_close_matches(self.metric, names, n=1)
            advice = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{self.source} is {self.metric!r}, but evaluation returns {', '.join(names)}{advice}"
            )

    def improves(self, value: float, best: float | None, by: float = 0.0) -> bool:
        """Whether ``value`` is better than ``best`` (None: nothing yet) by more than ``by``; NaN never is."""
        if math.isnan(value) or best is None:
            return not math.isnan(value)
        return (value - best if self.mode == "max" else best - value) > by


class BestCheckpoint:
    """Keeps the checkpoint whose evaluation was the best so far."""

    def __init__(self, goal: Goal, checkpoints: CheckpointHook, checkpointer: Checkpointer):
        self.goal = goal
        self._checkpoints = checkpoints
        self._checkpointer = checkpointer

    def update(
        self, trainer: Training, iteration: int, metrics: Mapping[str, float], before: EvaluationHistory
    ) -> None:
        """Saves and marks a checkpoint if ``metrics`` are better than all evaluations ``before``.

        Args:
            trainer: the run.
            iteration: of the evaluation: the present one, or that of an earlier checkpoint that still exists.
            metrics: of the evaluation.
            before: the previous evaluations.

        Raises:
            ValueError: the evaluation does not return the metric.
        """
        value = self.goal.value(metrics)
        best = None
        for earlier in before.values(self.goal.metric):
            if self.goal.improves(earlier, best):
                best = earlier
        if not self.goal.improves(value, best):
            return
        logger.info("best %s so far: %.4g", self.goal.metric, value)
        if iteration == trainer.iteration:
            self._checkpoints.save(trainer)
        # If the checkpoint could not be written, the log says so, and the previous best one stays.
        path = self._checkpointer.path_of(iteration)
        if is_main_process() and path.is_dir():
            try:
                self._checkpointer.mark_best(iteration, self.goal.metric, value)
            except OSError as error:
                logger.warning("%s could not be marked as the best: %s", path, error.strerror or error)
        barrier()


class EarlyStopping:
    """Tells when ``patience`` evaluations in a row have not improved on the best one before them.

    The decision depends only on the evaluations: a resumed run continues to count, and all processes agree.

    Args:
        goal: the metric that counts.
        patience: number of evaluations, at least 1.
        min_delta: an improvement must be larger than this.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(self, goal: Goal, patience: int, min_delta: float = 0.0):
        if patience < 1:
            raise ValueError(f"train.early_stopping.patience must be at least 1 evaluation, not {patience}")
        if min_delta < 0:
            raise ValueError(f"train.early_stopping.min_delta must not be negative, but is {min_delta}")
        self.goal = goal
        self._patience = patience
        self._min_delta = min_delta

    def reached(self, history: EvaluationHistory) -> bool:
        """Whether the run should stop."""
        best, waited = None, 0
        for value in history.values(self.goal.metric):
            if self.goal.improves(value, best, self._min_delta):
                best, waited = value, 0
            else:
                waited += 1
        return waited >= self._patience

    def __str__(self) -> str:
        return f"{self.goal.metric} has not improved in {self._patience} evaluations"


class EvalHook(Hook):
    """Evaluates every ``period`` steps (0: only at the end) and at the end, and uses the results.

    Args:
        evaluate: called on all processes; returns the metrics.
        period: in steps.
        writers: get the metrics and, if a writer shows pictures, a picture.
        history: keeps metrics for resumed runs.
        checkpoints: saves one when training is stopped early.
        best: keeps the best checkpoint, if given.
        stopping: ends training early, if given.
        draw: makes a picture of results, on the main process only; None if nothing can be drawn.
        beside: evaluates intermediate checkpoints, one at a time, while training continues. Their metrics are
            used when they arrive; the next evaluation and the end of the run wait for them. They have no
            pictures. If such an evaluation fails, the log has an error, and training continues.
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
        beside: EvaluationProcess | None = None,
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
        self._beside = beside
        self._waiting: deque[int] = deque()  # checkpoints to evaluate beside; the first is in progress

    def before_train(self, trainer: Training) -> None:
        """Performs an evaluation that the previous process did not get to after it saved the checkpoint."""
        self._history.restore(trainer.iteration)
        if self._beside is not None:
            for iteration in self._checkpoints.saved():
                was_due = iteration <= trainer.iteration and self._is_due(iteration, trainer)
                if was_due and iteration not in self._history:
                    self._begin_beside(self._beside, iteration)
        elif self._is_due(trainer.iteration, trainer) and trainer.iteration not in self._history:
            self._run(trainer)
        self._stop_if_reached(trainer)

    def after_step(self, trainer: Training) -> None:
        if self._beside is not None and self._waiting and self._beside.is_done():
            self._take(self._beside, trainer)
            self._stop_if_reached(trainer)
        # A run that was asked to stop may have only seconds left; the resumed run performs the evaluation.
        if self._is_due(trainer.iteration, trainer) and not trainer.stopping:
            if any(all_gather_objects(interruption.requested())):
                trainer.stopping = True  # together, so that all can save
                return
            if self._beside is None or not self._run_beside(self._beside, trainer):
                self._run(trainer)
            self._stop_if_reached(trainer)

    def after_train(self, trainer: Training) -> None:
        if self._beside is not None:
            self._take_all(self._beside, trainer)
        if self._evaluated != trainer.iteration:
            self._run(trainer)

    def close(self) -> None:
        if self._beside is not None:
            self._beside.close()

    def _is_due(self, done: int, trainer: Training) -> bool:
        return self._period > 0 and done > 0 and done % self._period == 0 and done < trainer.max_iter

    def _run_beside(self, beside: EvaluationProcess, trainer: Training) -> bool:
        """Starts the evaluation of the present weights, unless they cannot be saved, which is logged."""
        self._take_all(beside, trainer)
        self._checkpoints.save(trainer)
        if trainer.iteration not in self._checkpoints.saved():
            return False
        self._begin_beside(beside, trainer.iteration)
        return True

    def _begin_beside(self, beside: EvaluationProcess, iteration: int) -> None:
        path = self._checkpoints.use(iteration)
        self._waiting.append(iteration)
        if len(self._waiting) == 1:
            beside.start(path)

    def _take_all(self, beside: EvaluationProcess, trainer: Training) -> None:
        while self._waiting:
            if not beside.is_done():
                logger.info("waiting for the evaluation after iteration %d", self._waiting[0])
            self._take(beside, trainer)

    def _take(self, beside: EvaluationProcess, trainer: Training) -> None:
        """Uses the metrics of the checkpoint in progress, for which it may have to wait."""
        iteration = self._waiting[0]
        results = None
        try:
            results = beside.metrics()
        except EvaluationError as error:
            logger.error(
                "the evaluation after iteration %d, beside training, failed: %s\nTraining goes on.",
                iteration,
                error,
            )
        self._waiting.popleft()
        if results is not None:
            logger.info(
                "evaluation after iteration %d, beside training:\n%s", iteration, format_table(results)
            )
            self._writers.write(iteration, results)
            self._act(trainer, iteration, results)
        self._checkpoints.release(iteration)
        if self._waiting:
            beside.start(self._checkpoints.use(self._waiting[0]))

    def _run(self, trainer: Training) -> None:
        start = time.perf_counter()
        if self._evaluated is None and trainer.iteration > 0:
            self._checkpoints.save(trainer)  # most failures happen in the first evaluation
        with preserved_random_state():
            # The results of the main process, so that all processes decide in the same way.
            with interruption.interruptible():
                results = all_gather_objects(self._evaluate())[0]
            self._evaluated = trainer.iteration
            logger.info(
                "evaluation after iteration %d took %.1f s", trainer.iteration, time.perf_counter() - start
            )
            if trainer.iteration in self._history:  # a finished run was resumed; everything is done already
                return
            if is_main_process():
                self._write(trainer.iteration, results)
        self._act(trainer, trainer.iteration, results)

    def _act(self, trainer: Training, iteration: int, results: dict[str, float]) -> None:
        if self._best is not None:
            self._best.update(trainer, iteration, results, self._history)
        if self._stopping is not None:
            self._stopping.goal.value(results)  # raises if the metric is missing
        self._history.add(iteration, results)

    def _write(self, iteration: int, results: dict[str, float]) -> None:
        self._writers.write(iteration, results)
        if self._draw is not None and self._writers.show_pictures:
            picture = self._draw()
            if picture is not None:
                self._writers.picture(iteration, "predictions", picture)

    def _stop_if_reached(self, trainer: Training) -> None:
        if self._stopping is None or trainer.iteration >= trainer.max_iter:
            return
        if self._stopping.reached(self._history):
            logger.info("training ends after iteration %d: %s", trainer.iteration, self._stopping)
            self._checkpoints.save(trainer)
            trainer.max_iter = trainer.iteration
