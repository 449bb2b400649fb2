"""Locks a folder, so that only one program at a time works in it."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_NAME = ".lock"

logger = logging.getLogger(__name__)


class FolderInUseError(OSError):
    """Another program is working in the folder; the message names it."""


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Inside the block, no other program gets the lock of ``folder``, which is created if need be.

    The operating system holds the lock, also between machines that share the folder, and releases it when
    this process ends, however it ends. So a file that is left behind locks nothing.

    Raises:
        FolderInUseError: another program has the lock; the message names its process, machine and start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_NAME
    try:
        import fcntl
    except ImportError:  # Windows, where a locked file cannot be read either
        with _other_lock(path):
            yield
        return
    with path.open("a+", encoding="utf-8") as file:
        try:
            # The process holds the lock, not the open file: forked workers that outlive it do not keep it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                logger.warning("%s cannot be locked (%s); see to it that no other run uses it", folder, error)
                yield
                return
            file.seek(0)
            raise FolderInUseError(
                f"{folder} is in use by another run, {_describe(file.read())}: wait for its end, stop it, or "
                "set another train.output_dir"
            ) from None
        file.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        json.dump({"process": os.getpid(), "host": socket.gethostname(), "started": started}, file)
        file.flush()
        yield


@contextmanager
def _other_lock(path: Path) -> Iterator[None]:
    """The lock of :func:`locked_folder` by the package filelock, which knows the locks of other systems."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUseError(
            f"{path.parent} is in use by another run: wait for its end, stop it, or set another "
            "train.output_dir"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _describe(content: str) -> str:
    try:
        holder = json.loads(content)
        return f"process {holder['process']} on {holder['host']}, started at {holder['started']}"
    except (ValueError, KeyError, TypeError):
        return "which is only just starting"
