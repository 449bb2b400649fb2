"""Saves checkpoints during training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from detrex.checkpoint import FINAL_AVERAGE, FINAL_WEIGHTS, Checkpointer, CheckpointError, write_weights
from detrex.checkpoint.checkpointer import iteration_of
from detrex.engine.hooks.hook import Hook, Training
from detrex.engine.parallel import is_split
from detrex.runtime import interruption
from detrex.runtime.distributed import all_gather_objects, alone, barrier, is_main_process, world_size

_CLAIM = ".saving-"  # followed by the iteration: the file of the process that saves for all
_LONGEST_SAVE = 120.0  # seconds to wait for the checkpoint of another process

logger = logging.getLogger(__name__)


class CheckpointHook(Hook):
    """Saves a checkpoint every ``period`` steps (0: only the last) and after the last one.

    At the end, the weights alone, and their average if there is one, are also written to ``output_dir``.

    If a checkpoint cannot be written, for example because the disk is full, the log has an error; training
    continues, because earlier checkpoints still exist and the next one may succeed. If something is missing
    at the end, :meth:`check` raises an error. A run that fails, or is asked to stop, first saves its last
    complete step.
    """

    def __init__(
        self, checkpointer: Checkpointer, period: int, metadata: Mapping[str, str], output_dir: Path
    ):
        self._checkpointer = checkpointer
        self._period = period
        self._metadata = metadata
        self._output_dir = output_dir
        self._saved: int | None = None
        self._failures: dict[str, str] = {}  # reasons by what the last attempt could not save

    def before_train(self, trainer: Training) -> None:
        self._saved = trainer.iteration  # a resumed run need not replace the checkpoint that it started from
        if is_main_process():
            for claim in self._checkpointer.directory.glob(f"{_CLAIM}*"):
                claim.unlink(missing_ok=True)  # left by a process that was killed

    def after_step(self, trainer: Training) -> None:
        due = self._period > 0 and trainer.iteration % self._period == 0
        if due or trainer.iteration == trainer.max_iter:
            self.save(trainer)

    def after_train(self, trainer: Training) -> None:
        weights = trainer.weights()
        self._attempt("the final weights", lambda: self._write_final(trainer, weights))

    def after_failure(self, trainer: Training) -> None:
        """Saves the last complete step, on whichever process comes here first.

        That process knows only its own random state; after a resume, other processes draw other numbers.
        """
        if trainer.stopping or world_size() == 1:
            self.save(trainer)
        elif is_split(trainer.module):
            logger.error("one process cannot save a checkpoint where weights are split over several")
        else:
            with alone(), self._first_to_come(trainer.iteration) as first:
                if first:
                    self.save(trainer)

    @contextmanager
    def _first_to_come(self, iteration: int) -> Iterator[bool]:
        """Yields whether this process is to save the step; if another one does, waits for that."""
        claim = self._checkpointer.directory / f"{_CLAIM}{iteration}"
        claim.parent.mkdir(parents=True, exist_ok=True)
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            until = time.monotonic() + _LONGEST_SAVE
            while claim.exists() and time.monotonic() < until:
                time.sleep(0.1)
            yield False
            return
        try:
            yield True
        finally:
            claim.unlink(missing_ok=True)

    def save(self, trainer: Training) -> None:
        """Saves now, unless the same step has been saved already; call it on all processes."""
        if self._saved == trainer.iteration:
            return
        state, weights = trainer.state_dict(), trainer.weights()
        if self._attempt("the last checkpoint", lambda: self._write_checkpoint(trainer, weights, state)):
            self._saved = trainer.iteration

    def saved(self) -> list[int]:
        """The iterations of all existing checkpoints."""
        return [iteration_of(path) for path in self._checkpointer.paths()]

    def use(self, iteration: int) -> Path:
        """The folder of a checkpoint, which is not deleted until it is released."""
        self._checkpointer.in_use.add(iteration)
        return self._checkpointer.path_of(iteration)

    def release(self, iteration: int) -> None:
        """Allows a checkpoint to be deleted like any other, which may happen when the next one is saved."""
        self._checkpointer.in_use.discard(iteration)

    def check(self) -> None:
        """Checks the last checkpoint; all processes call it at the very end of a run.

        Raises:
            CheckpointError: the last checkpoint or the final weights could not be written.
        """
        if self._failures:
            # Or the end of one process stops the others, of which the main one still writes the report.
            barrier()
            failed = "; ".join(f"{what} ({reason})" for what, reason in self._failures.items())
            raise CheckpointError(
                f"could not save {failed} in {self._output_dir}: make room there and repeat the command with "
                "--resume, which goes on from the newest checkpoint"
            )

    def _attempt(self, what: str, write: Callable[[], None]) -> bool:
        """Writes on the main process; all processes wait for it and return whether it succeeded."""
        failure = None
        with interruption.deferred():
            if is_main_process():
                try:
                    write()
                except OSError as error:
                    failure = error.strerror or str(error)
                    logger.error(
                        "could not save %s: %s. Earlier checkpoints are untouched; going on.", what, failure
                    )
            failure = all_gather_objects(failure)[0]
        self._failures.pop(what, None)
        if failure is not None:
            self._failures[what] = failure
        return failure is None

    def _write_checkpoint(self, trainer: Training, weights: dict[str, Tensor], state: dict) -> None:
        average = None if trainer.average is None else trainer.average.weights()
        path = self._checkpointer.save(trainer.iteration, weights, state, self._metadata, average)
        logger.info("saved %s", path)

    def _write_final(self, trainer: Training, weights: dict[str, Tensor]) -> None:
        metadata = {**self._metadata, "iteration": str(trainer.iteration)}
        files = {FINAL_WEIGHTS: weights}
        if trainer.average is not None:
            files[FINAL_AVERAGE] = trainer.average.weights()
        for name, content in files.items():
            write_weights(self._output_dir / name, content, metadata)
            logger.info("saved %s", self._output_dir / name)
