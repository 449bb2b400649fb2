"""Requests to stop: SIGTERM, SIGUSR1 and SIGINT, from the first line of a program on.

A batch system that takes a machine back, or a user with ``kill`` or Ctrl-C, asks a program to stop. It then
keeps what it has done and ends with :data:`EXIT_INTERRUPTED`. A second request ends it at once.

Where nothing would be lost, a request raises :class:`Interrupted` right away. Code that must not be cut
through, such as an optimizer step or the writing of a checkpoint, runs inside :func:`deferred`; long waits in
the middle of it, where the state is consistent, inside :func:`interruptible`.

Signals are a matter of the whole process, and so is the state here. Only light modules are imported, so that
a program can call :func:`listen` before its other imports, which take seconds.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
)  # Windows has no SIGUSR1
EXIT_INTERRUPTED = 75
"""Exit code of a stopped program that can be resumed: EX_TEMPFAIL of ``sysexits.h``, "try again later"."""

# Launchers and batch systems may both pass on the same signal; one that follows this soon is a repetition.
_SAME_REQUEST = 1.0  # seconds


class Interrupted(SystemExit):
    """Ends the process with :data:`EXIT_INTERRUPTED`."""

    def __init__(self) -> None:
        super().__init__(EXIT_INTERRUPTED)


class _Mode(IntEnum):
    """What a request does inside a block."""

    WAITS = 0
    WAITS_UNLESS_FORCED = 1
    RAISES = 2


class _Listener:
    """The state of this process concerning requests to stop."""

    def __init__(self) -> None:
        self.pid = 0  # of the process that listens; 0: nobody does
        self.previous: dict[int, Any] = {}
        self.requested_at: float | None = None
        self.modes = [_Mode.RAISES]  # from the outermost block to the innermost
        self.forced = False
        self.pass_on: Callable[[int], None] | None = None

    def handle(self, number: int, _frame: Any) -> None:
        if os.getpid() != self.pid:
            _act_by_default(number)  # a forked process that has inherited this handler
        elif self.forced:
            self.forced = False
            if self.modes[-1] >= _Mode.WAITS_UNLESS_FORCED:
                raise Interrupted
        else:
            self.note(number)

    def note(self, number: int) -> None:
        now = time.monotonic()
        if self.pass_on is not None:
            self.pass_on(number)
        if self.requested_at is None:
            self.requested_at = now
            name = signal.Signals(number).name
            _say(f"{name}: stopping in order, to keep what was done; a second one ends this at once\n")
            if self.modes[-1] == _Mode.RAISES:
                raise Interrupted
        elif now - self.requested_at > _SAME_REQUEST:
            _act_by_default(number)


_listener: _Listener = _Listener()


def listen() -> None:
    """From now on, requests to stop end this process in an orderly way; call it in the main thread.

    Does nothing if the process listens already, or in another thread: Python delivers signals only to the
    main thread.
    """
    if _listener.pid == os.getpid() or threading.current_thread() is not threading.main_thread():
        return
    _start_afresh()
    _listener.pid = os.getpid()
    _listener.previous = {number: signal.signal(number, _listener.handle) for number in SIGNALS}


@contextmanager
def listening() -> Iterator[None]:
    """Listens inside the block, unless the process does already; afterwards signals act as before."""
    if _listener.pid == os.getpid() or threading.current_thread() is not threading.main_thread():
        yield
        return
    listen()
    try:
        yield
    finally:
        stop_listening()


def stop_listening() -> None:
    """Makes signals act as they did before :func:`listen`."""
    for number, handler in _listener.previous.items():
        signal.signal(number, handler)
    _start_afresh()


def _start_afresh() -> None:
    global _listener  # noqa: PLW0603  # signals are a matter of the whole process
    _listener = _Listener()


def is_listening() -> bool:
    """Whether requests to stop end this process in an orderly way."""
    return _listener.pid == os.getpid()


def requested() -> bool:
    """Whether this process was asked to stop."""
    return _listener.requested_at is not None


def seconds_since_request() -> float:
    """How long ago this process was asked to stop; 0 without a request."""
    return 0.0 if _listener.requested_at is None else time.monotonic() - _listener.requested_at


@contextmanager
def deferred() -> Iterator[None]:
    """Inside the block, requests are only noted; :func:`requested` tells whether there was one.

    Raises:
        Interrupted: at the end of the block, if there was a request and the block around it raises at once.
    """
    with _block(_Mode.WAITS):
        yield
    if requested() and _listener.modes[-1] == _Mode.RAISES:
        raise Interrupted


@contextmanager
def noted() -> Iterator[None]:
    """Inside the block, requests are only noted, and its end raises nothing: the program is ending anyway."""
    with _block(_Mode.WAITS):
        yield


@contextmanager
def passed_on(pass_on: Callable[[int], None]) -> Iterator[None]:
    """Inside the block, requests are passed on to other processes, whose end this one waits for.

    Args:
        pass_on: called with the number of each signal.
    """
    _listener.pass_on = pass_on
    try:
        with _block(_Mode.WAITS):
            yield
    finally:
        _listener.pass_on = None


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside the block, which lies in a deferred one, a request raises right away.

    Raises:
        Interrupted: there was a request before the block or inside it.
    """
    with _block(_Mode.RAISES):
        if requested():
            raise Interrupted
        yield


@contextmanager
def interruptible_by_force() -> Iterator[None]:
    """Inside the block, which lies in a deferred one, only :func:`force` raises; a request waits."""
    with _block(max(_Mode.WAITS_UNLESS_FORCED, _listener.modes[-1])):
        yield


def force() -> None:
    """Makes the main thread raise :class:`Interrupted` where it allows that; for use in other threads."""
    _listener.forced = True
    ident = threading.main_thread().ident
    if not hasattr(signal, "pthread_kill"):  # Windows
        _thread.interrupt_main(signal.SIGTERM)
    elif ident is not None:
        signal.pthread_kill(ident, signal.SIGTERM)


@contextmanager
def _block(mode: _Mode) -> Iterator[None]:
    _listener.modes.append(mode)
    try:
        yield
    finally:
        _listener.modes.pop()


def _act_by_default(number: int) -> None:
    """Acts as if the signal had never been handled, so that the parent process sees the signal."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _say(text: str) -> None:
    # Neither print nor a logger: a signal may arrive while one of these is running.
    try:
        os.write(2, text.encode())
    except OSError:
        pass
