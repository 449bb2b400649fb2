"""Takes batches from a loader, and watches how long they take and whether its worker processes live."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from detrex.runtime import interruption

Batch = TypeVar("Batch")

FIRST_WARNING = 60.0  # seconds; each further warning comes after twice as long
GRACE = 5.0  # seconds that a batch may still take after a request to stop
_CHECKED_EVERY = 0.5  # seconds

logger = logging.getLogger(__name__)


class LostWorkerError(RuntimeError):
    """A worker process of a loader has ended before its work."""


def watched(batches: Iterable[Batch], purpose: str) -> Iterator[Batch]:
    """Yields ``batches`` one after another, and warns when one takes long.

    A request to stop does not wait for a batch that never comes: after :data:`GRACE` seconds it raises
    :class:`~detrex.runtime.interruption.Interrupted` here.

    Args:
        batches: of a loader.
        purpose: what the batches are for, for messages.

    Raises:
        LostWorkerError: a worker process was killed, whatever error the loader raised.
    """
    watch = _Watch(purpose)
    try:
        iterator = iter(batches)
        while True:
            with watch.waiting():
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
                except Exception as error:
                    if (lost := _lost_worker() or _told_by_loader(error)) is not None:
                        raise LostWorkerError(lost) from error
                    raise
            yield batch
    finally:
        watch.stop()


class _Watch:
    """A thread that measures how long the main thread has been waiting."""

    def __init__(self, purpose: str):
        self._purpose = purpose
        self._since: float | None = None
        self._stopped = threading.Event()
        threading.Thread(target=self._look, name=f"watch on {purpose}", daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        with interruption.interruptible_by_force():
            self._since = time.monotonic()
            try:
                yield
            finally:
                self._since = None

    def stop(self) -> None:
        self._stopped.set()

    def _look(self) -> None:
        warned_at: tuple[float, float] | None = None  # the beginning of the wait, and its length
        while not self._stopped.wait(_CHECKED_EVERY):
            if (since := self._since) is None:
                continue
            waited = time.monotonic() - since
            if interruption.requested() and min(waited, interruption.seconds_since_request()) > GRACE:
                interruption.force()
            limit = 2 * warned_at[1] if warned_at is not None and warned_at[0] == since else FIRST_WARNING
            if waited > limit:
                warned_at = since, waited
                logger.warning(
                    "waiting for %s for %.0f s: reading is slow, or the storage does not answer. "
                    "The run goes on when it does; SIGTERM saves and ends it.",
                    self._purpose,
                    waited,
                )


def _lost_worker() -> str | None:
    """How a child process ended that failed or was killed; None if there is none.

    A loader that reads from a dead worker may fail in any way before it notices.
    """
    if not hasattr(os, "waitid"):  # macOS and Windows; only the loader's message is known
        return None
    for _ in range(5):
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None
        if ended is not None and (ended.si_code != os.CLD_EXITED or ended.si_status):
            how = f"exited with code {ended.si_status}"
            if ended.si_code != os.CLD_EXITED:
                how = f"was killed by {signal.Signals(ended.si_status).name}"
            return (
                f"a worker process of the data loader (pid {ended.si_pid}) {how}. It may have used too much "
                "memory: lower num_workers of the data loaders."
            )
        if not multiprocessing.active_children():
            return None
        time.sleep(0.1)
    return None


def _told_by_loader(error: Exception) -> str | None:
    """What PyTorch's loader says about a worker that ended; needed if another child ended before it."""
    told = str(error)
    if not (told.startswith("DataLoader worker") and ("exited" in told or "killed" in told)):
        return None
    return (
        f"a worker process of the data loader was killed or ended ({told}). It may have used too much "
        "memory: lower num_workers of the data loaders."
    )
