"""Saving checkpoints during training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from detrex.checkpoint import Checkpointer, write_weights
from detrex.engine.hooks import Hook
from detrex.utils.distributed import barrier, is_main_process

if TYPE_CHECKING:
    from detrex.engine.trainer import Trainer

logger = logging.getLogger(__name__)


class CheckpointHook(Hook):
    """Saves a checkpoint every ``period`` steps (0: only the last) and after the last one.

    At the end the weights alone go to the file ``final`` besides.
    """

    def __init__(self, checkpointer: Checkpointer, period: int, metadata: Mapping[str, str], final: Path):
        self._checkpointer = checkpointer
        self._period = period
        self._metadata = metadata
        self._final = final
        self._saved: int | None = None

    def after_step(self, trainer: Trainer) -> None:
        if _is_due(trainer, self._period):
            self.save(trainer)

    def after_train(self, trainer: Trainer) -> None:
        if is_main_process():
            metadata = {**self._metadata, "iteration": str(trainer.iteration)}
            write_weights(self._final, trainer.module.state_dict(), metadata)
            logger.info("saved %s", self._final)
        barrier()

    def save(self, trainer: Trainer) -> None:
        """Saves now, if this has not been done after the same step."""
        if self._saved == trainer.iteration:
            return
        state = trainer.state_dict()
        if is_main_process():
            weights = trainer.module.state_dict()
            path = self._checkpointer.save(trainer.iteration, weights, state, self._metadata)
            logger.info("saved %s", path)
        barrier()
        self._saved = trainer.iteration


def _is_due(trainer: Trainer, period: int) -> bool:
    return trainer.iteration == trainer.max_iter or (period > 0 and trainer.iteration % period == 0)
