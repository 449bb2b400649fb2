"""Saving checkpoints during training."""

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
from detrex.runtime.distributed import all_gather_objects, alone, is_main_process, world_size

_CLAIM = ".saving-"  # and the iteration: a file of the process that saves for all
_LONGEST_SAVE = 120.0  # seconds to wait for the checkpoint of another process

logger = logging.getLogger(__name__)


class CheckpointHook(Hook):
    """Saves a checkpoint every ``period`` steps (0: only the last) and after the last one.

    At the end the weights alone, and their average if there is one, become files in ``output_dir`` besides.

    A checkpoint that cannot be written, for example because the disk is full, is an error in the log;
    training goes on, for earlier checkpoints are untouched and the next one may succeed. What is missing at
    the end is raised by :meth:`check`. A run that ends with an error, or is asked to stop, saves its last
    complete step first.
    """

    def __init__(
        self, checkpointer: Checkpointer, period: int, metadata: Mapping[str, str], output_dir: Path
    ):
        self._checkpointer = checkpointer
        self._period = period
        self._metadata = metadata
        self._output_dir = output_dir
        self._saved: int | None = None
        self._failures: dict[str, str] = {}  # of the last attempts, by what could not be saved

    def before_train(self, trainer: Training) -> None:
        self._saved = trainer.iteration  # a resumed run need not replace the checkpoint that it started from
        if is_main_process():
            for claim in self._checkpointer.directory.glob(f"{_CLAIM}*"):
                claim.unlink(missing_ok=True)  # of a process that was killed

    def after_step(self, trainer: Training) -> None:
        due = self._period > 0 and trainer.iteration % self._period == 0
        if due or trainer.iteration == trainer.max_iter:
            self.save(trainer)

    def after_train(self, trainer: Training) -> None:
        weights = trainer.weights()
        self._attempt("the final weights", lambda: self._write_final(trainer, weights))

    def after_failure(self, trainer: Training) -> None:
        """Saves the last complete step, on whichever process comes here first.

        It knows the random numbers of itself alone, so that those of other processes will be others.
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
        """Whether no other process saves the same step; waits for one that does."""
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
        """Saves now, if this has not been done after the same step; to be called on all processes."""
        if self._saved == trainer.iteration:
            return
        state, weights = trainer.state_dict(), trainer.weights()
        if self._attempt("the last checkpoint", lambda: self._write_checkpoint(trainer, weights, state)):
            self._saved = trainer.iteration

    def saved(self) -> list[int]:
        """The iterations of all checkpoints that there are."""
        return [iteration_of(path) for path in self._checkpointer.paths()]

    def use(self, iteration: int) -> Path:
        """The folder of a checkpoint, which stays until it is released."""
        self._checkpointer.in_use.add(iteration)
        return self._checkpointer.path_of(iteration)

    def release(self, iteration: int) -> None:
        """Lets a checkpoint be deleted like any other; the next one that is saved may do so."""
        self._checkpointer.in_use.discard(iteration)

    def check(self) -> None:
        """Checks the last checkpoint; to be called at the very end of a run.

        Raises:
            CheckpointError: the last checkpoint or the final weights could not be written.
        """
        if self._failures:
            failed = "; ".join(f"{what} ({reason})" for what, reason in self._failures.items())
            raise CheckpointError(
                f"could not save {failed} in {self._output_dir}: make room there and repeat the command with "
                "--resume, which goes on from the newest checkpoint"
            )

    def _attempt(self, what: str, write: Callable[[], None]) -> bool:
        """Writes on the main process; whether it succeeded is known to all, which wait for it."""
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
