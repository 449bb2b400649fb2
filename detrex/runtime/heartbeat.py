"""Signs of life between the processes of a run, so that the others do not wait forever for one that hangs."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from detrex.runtime.distributed import all_gather_objects, is_distributed, rank, world_size

_ENDED = b"ended"

logger = logging.getLogger(__name__)


@contextmanager
def heartbeat(timeout: float, host: str) -> Iterator[None]:
    """Inside the block, this process ends with a message if another one gives no sign of life.

    Otherwise it would wait in vain for a process that was stopped or whose machine does not answer. A process
    that merely works for a long time, such as on the results of an evaluation, still gives signs of life.

    Args:
        timeout: seconds without a sign of life; 0 for no limit.
        host: of the first process, as the others reach it.
    """
    if not is_distributed() or world_size() == 1 or timeout <= 0:
        yield
        return
    first = rank() == 0
    patience = timedelta(seconds=timeout)
    store = dist.TCPStore(host, 0, None, True, patience, wait_for_workers=False) if first else None
    port = all_gather_objects(None if store is None else store.port)[0]
    if store is None:
        store = dist.TCPStore(host, port, None, False, patience)
    names = all_gather_objects(f"process {rank()} (pid {os.getpid()} on {socket.gethostname()})")
    pulse = _Pulse(store, names, timeout)
    try:
        yield
    finally:
        pulse.stop()


class _Pulse:
    """A thread that tells other processes that this one is alive, and watches them."""

    def __init__(self, store: dist.Store, names: list[str], timeout: float):
        self._store, self._names, self._timeout = store, names, timeout
        self._rank = rank()
        self._interval = min(5.0, timeout / 4)
        self._stopped = threading.Event()
        self._beat(b"0")
        dist.barrier()  # all have a value from here on
        self._thread = threading.Thread(target=self._look, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(self._interval)

    def _beat(self, value: bytes) -> None:
        self._store.set(str(self._rank), value.decode())

    def _look(self) -> None:
        keys = [str(k) for k in range(len(self._names))]
        seen = {key: (b"", time.monotonic()) for key in keys}
        count = 0
        while True:
            ended = self._stopped.wait(self._interval)
            count += 1
            asked = time.monotonic()
            try:
                self._beat(_ENDED if ended else str(count).encode())
                values = dict(zip(keys, self._store.multi_get(keys), strict=True))
            except RuntimeError:
                # The first process keeps the values. If it has ended, that is seen elsewhere.
                if not ended and time.monotonic() - asked > 0.9 * self._timeout:
                    self._give_up(self._names[0])
                return
            if ended:
                return
            now = time.monotonic()
            for key, value in values.items():
                if value not in (seen[key][0], _ENDED) or int(key) == self._rank:
                    seen[key] = value, now
                elif value != _ENDED and now - seen[key][1] > self._timeout:
                    self._give_up(self._names[int(key)])

    def _give_up(self, name: str) -> None:
        logger.error(
            "%s has given no sign of life for %.0f s: it hangs, was stopped, or its machine does not answer. "
            "This process ends; repeat the command with --resume to go on from the last checkpoint "
            "(train.process_timeout sets the time).",
            name,
            self._timeout,
        )
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(1)  # the main thread waits for the other process and cannot be reached
