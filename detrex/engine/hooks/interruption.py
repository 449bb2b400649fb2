"""Stopping a run in order when the system asks for it, so that it can go on later.

A batch system that takes a machine back, or a user with ``kill``, sends SIGTERM or SIGUSR1. The run then
finishes its step, saves a checkpoint and ends with the exit code :data:`EXIT_INTERRUPTED`. A second signal
ends it at once; checkpoints are written so that the one before stays good.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detrex.engine.hooks.checkpoints import CheckpointHook
from detrex.engine.hooks.hook import Hook, Training
from detrex.runtime.distributed import barrier

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
EXIT_INTERRUPTED = 75
"""Of a run that was stopped and can go on: EX_TEMPFAIL of ``sysexits.h``, "try again later"."""
# Launchers and batch systems may both pass the same signal on; what comes this soon is no second request.
_SAME_REQUEST = 1.0  # seconds

logger = logging.getLogger(__name__)


class Interrupted(SystemExit):
    """Ends the process with :data:`EXIT_INTERRUPTED`, after a checkpoint was saved."""

    def __init__(self):
        super().__init__(EXIT_INTERRUPTED)


class InterruptionHook(Hook):
    """Ends training after the step in which any process got one of :data:`SIGNALS`, with a checkpoint.

    To be the last hook, so that the others are closed before any process ends. Signals are heard while the
    trainer runs, and in its main thread only (Python gives them to no other).
    """

    def __init__(self, checkpoints: CheckpointHook):
        self._checkpoints = checkpoints
        self._previous: dict[int, Any] = {}
        self._asked_at: float | None = None
        self._ending = False

    def before_train(self, trainer: Training) -> None:
        if threading.current_thread() is not threading.main_thread():
            logger.warning("not in the main thread: SIGTERM and SIGUSR1 will not save a checkpoint")
            return

        def handle(number: int, _frame: Any) -> None:
            self._handle(number, trainer)

        self._previous = {number: signal.signal(number, handle) for number in SIGNALS}

    def after_step(self, trainer: Training) -> None:
        if not trainer.stopping:
            return
        self._checkpoints.save(trainer)
        self._ending = True
        logger.info(
            "stopped by a signal after iteration %d; repeat the command with --resume to go on (code %d)",
            trainer.iteration,
            EXIT_INTERRUPTED,
        )
        raise Interrupted

    def close(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        if self._ending:
            barrier()  # launchers end the other processes as soon as one has ended

    def _handle(self, number: int, trainer: Training) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            trainer.request_stop()  # no more: this may run in the middle of anything, such as a log message
        elif now - self._asked_at > _SAME_REQUEST:
            # As if it had never been handled, so that whoever waits for this process sees the signal.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def forwarded_signals() -> Iterator[None]:
    """Passes :data:`SIGNALS` on to the processes that this one started, which then end in order."""

    def forward(number: int, _frame: Any) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
