"""What a run is to achieve, and the checkpoint that does it best."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detrex.checkpoint import Checkpointer
from detrex.engine.hooks.history import EvaluationHistory
from detrex.runtime.distributed import barrier, is_main_process

if TYPE_CHECKING:
    from detrex.engine.saving import CheckpointHook
    from detrex.engine.trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Goal:
    """A figure of evaluations and which of its values are good.

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
        """The figure among those of an evaluation.

        Raises:
            ValueError: it is none of them.
        """
        if self.metric not in metrics:
            raise ValueError(f"{self.source} is {self.metric!r}, but evaluation returns {', '.join(metrics)}")
        return metrics[self.metric]

    def improves(self, value: float, best: float | None, by: float = 0.0) -> bool:
        """Whether ``value`` is better than ``best`` (None: nothing yet) by more than ``by``; NaN never is."""
        if math.isnan(value) or best is None:
            return not math.isnan(value)
        return (value - best if self.mode == "max" else best - value) > by


class BestCheckpoint:
    """Keeps the checkpoint whose evaluation was the best so far."""

    def __init__(self, goal: Goal, checkpoints: CheckpointHook, checkpointer: Checkpointer):
        self._goal = goal
        self._checkpoints = checkpoints
        self._checkpointer = checkpointer

    def update(self, trainer: Trainer, metrics: Mapping[str, float], before: EvaluationHistory) -> None:
        """Saves and marks a checkpoint if ``metrics`` are better than all evaluations ``before``.

        Raises:
            ValueError: the evaluation does not return the metric.
        """
        value = self._goal.value(metrics)
        best = None
        for earlier in before.values(self._goal.metric):
            if self._goal.improves(earlier, best):
                best = earlier
        if not self._goal.improves(value, best):
            return
        logger.info("best %s so far: %.4g", self._goal.metric, value)
        self._checkpoints.save(trainer)
        # A checkpoint that could not be written is in the log; the best one before it stays.
        if is_main_process() and self._checkpointer.path_of(trainer.iteration).is_dir():
            self._checkpointer.mark_best(trainer.iteration, self._goal.metric, value)
        barrier()
