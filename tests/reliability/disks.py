"""Disks without room."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from tests.engine import dummy


def limit_files(size: int | None) -> None:
    """From now on no file of this process grows beyond ``size`` bytes, as on a full disk; None: no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if size is None else size, hard))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The same inside of a block."""
    limit_files(size)
    try:
        yield
    finally:
        limit_files(None)


class FullDiskLoader(dummy.TrainLoader):
    """Files cannot grow beyond ``room`` bytes from the loading of batch ``full_at`` to ``free_at``."""

    def __init__(self, *args, room: int, full_at: int, free_at: int | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self._room, self._full_at, self._free_at = room, full_at, free_at

    def batch(self, position):
        if position == self._full_at:
            limit_files(self._room)
        if position == self._free_at:
            limit_files(None)
        return super().batch(position)
