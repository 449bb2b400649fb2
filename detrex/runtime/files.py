"""Files and directories that are written either completely or not at all."""

from __future__ import annotations

import errno
import glob
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

TEMPORARY_PREFIX = ".tmp-"
# Errors that another try would not mend.
_LASTING = {getattr(errno, name) for name in ("ENOENT", "EACCES", "EPERM", "EISDIR", "ENOTDIR", "EINVAL")}

Content = TypeVar("Content")

logger = logging.getLogger(__name__)


@contextmanager
def replaced_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; the file written there replaces it when the block succeeds.

    When the block fails or the machine stops, the previous file stays as it was.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


@contextmanager
def replaced_directory(path: str | Path) -> Iterator[Path]:
    """Like :func:`replaced_file`, for a directory that holds files but no directories."""
    path = Path(path)
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        _flush(temporary)
        _put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush(path.parent)


def retried(read: Callable[[], Content], pauses: Sequence[float] = (0.5, 1.0, 2.0)) -> Content:
    """Calls ``read`` and returns its result; tries again after brief errors of the storage or network.

    A missing file, a file that may not be read and an error in the content are raised at once.

    Args:
        read: may be called several times; raises OSError, or an error that has one as its cause.
        pauses: seconds before each further try.
    """
    for pause in pauses:
        try:
            return read()
        except Exception as error:
            reason = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(reason, OSError) or reason.errno is None or reason.errno in _LASTING:
                raise
            logger.warning("reading failed (%s), and is tried again in %g s", reason, pause)
            time.sleep(pause)
    return read()


def remove_leftovers(directory: Path, name: str | None = None) -> None:
    """Deletes temporary files of interrupted writes; no process may be writing to ``directory`` meanwhile.

    Args:
        directory: where the files were to be written.
        name: of the file that was to be written; None for all files.
    """
    for leftover in directory.glob(f"{TEMPORARY_PREFIX}*{f'-{glob.escape(name)}' if name else ''}"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{threading.get_ident()}-{path.name}")


def _put_in_place(temporary: Path, path: Path) -> None:
    # A directory cannot be renamed over one that has files in it, so the old one is renamed first.
    old = path.with_name(f"{temporary.name}-old")
    if path.exists():
        os.rename(path, old)
    os.rename(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    """Waits until the contents of a file, or the entries of a directory, are on the disk."""
    if os.name != "posix" and path.is_dir():
        return
    # Windows flushes only what could be written to.
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
