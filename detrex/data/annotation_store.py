"""The checked annotations of a data set as one file or block of memory, read an image at a time.

A store is a zip archive without compression: lists of JSON texts, the arrays that say where each ends, and a
header. Nothing in it is code, and damage shows in the archive's checksums.
"""

from __future__ import annotations

import io
import json
import os
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np

from detrex.data.errors import DataError
from detrex.data.packed_list import Bytes, GroupedList, PackedList, ends_of, packed

_HEADER = "header.json"
_LOCAL_HEADER = (
    30  # bytes before the name of an archive's member, the last four the lengths of name and extras
)


class StoreWriter:
    """Writes a store to an open file, piece by piece; a ``with`` block completes it."""

    def __init__(self, file: BinaryIO):
        self._zip = ZipFile(file, "w")

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: Any) -> None:
        if error is not None:
            self._zip.fp = None  # the archive is given up: nothing more is to be written
        self._zip.close()

    @contextmanager
    def items(self, name: str) -> Iterator[Callable[[Any], None]]:
        """Yields a function that appends an item to the list ``name``."""
        lengths = array("q")
        with self._zip.open(f"{name}.texts", "w", force_zip64=True) as file:
            buffered = io.BufferedWriter(file, 1 << 20)

            def add(item: Any) -> None:
                lengths.append(buffered.write(packed(item)))

            try:
                yield add
            finally:
                buffered.detach()  # after writing what is left
        self.array(f"{name}.ends", ends_of(lengths))

    def array(self, name: str, values: np.ndarray) -> None:
        """Adds an array."""
        with self._zip.open(f"{name}.npy", "w") as file:
            np.lib.format.write_array(file, values, allow_pickle=False)

    def groups(self, name: str, groups: np.ndarray, count: int) -> None:
        """Adds the group, from 0 to ``count`` - 1, of each item of the list ``name``."""
        self.array(f"{name}.order", np.argsort(groups, kind="stable").astype(np.int32))
        self.array(f"{name}.groups", np.cumsum(np.bincount(groups, minlength=count), dtype=np.int64))

    def header(self, header: dict[str, Any]) -> None:
        """Adds the header, plain data."""
        self._zip.writestr(_HEADER, json.dumps(header))


class FileBytes:
    """The bytes of a file, of which slices are read when they are asked for.

    Nothing is mapped: pages that were read are the system's, and count for no process. Forked processes share
    the open file, others open it again.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = self.path.open("rb", buffering=0)
        self._state = _state(self._file.fileno())

    def __getitem__(self, place: slice) -> bytes:
        data = os.pread(self._file.fileno(), place.stop - place.start, place.start)
        if len(data) != place.stop - place.start:
            raise DataError(f"{self.path} was changed while it was in use. Start again.")
        return data

    def opened(self) -> BinaryIO:
        """The same file, also where another has taken its place, at its beginning."""
        file = os.fdopen(os.dup(self._file.fileno()), "rb")
        file.seek(0)
        return file

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "state": self._state}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.__init__(kept["path"])
        if self._state != kept["state"]:
            raise DataError(f"{self.path} was replaced while it was in use. Start again.")


class Store:
    """Reads a store.

    Args:
        data: :class:`FileBytes`, or an array of bytes in memory.

    Attributes:
        header: see :meth:`StoreWriter.header`.

    Raises:
        BadZipFile: it is damaged.
    """

    def __init__(self, data: Bytes):
        self._data = data
        self._places: dict[str, slice] = {}
        with (
            data.opened() if isinstance(data, FileBytes) else io.BytesIO(data) as file,
            ZipFile(file) as archive,
        ):
            if damaged := archive.testzip():
                raise BadZipFile(f"{damaged} has another checksum")
            for member in archive.infolist():
                file.seek(member.header_offset + _LOCAL_HEADER - 4)
                lengths = np.frombuffer(file.read(4), "<u2").sum()
                start = member.header_offset + _LOCAL_HEADER + int(lengths)
                self._places[member.filename] = slice(start, start + member.file_size)
        self.header: dict[str, Any] = json.loads(bytes(data[self._places[_HEADER]]))

    def array(self, name: str) -> np.ndarray:
        """The array of this name, in memory."""
        content = io.BytesIO(bytes(self._data[self._places[f"{name}.npy"]]))
        return np.lib.format.read_array(content, allow_pickle=False)

    def items(self, name: str) -> PackedList:
        """The list of this name."""
        ends = self.array(f"{name}.ends")
        return PackedList(_Part(self._data, self._places[f"{name}.texts"].start), ends)

    def groups(self, name: str) -> GroupedList:
        """The list of this name by group."""
        order, ends = (self.array(f"{name}.{part}") for part in ("order", "groups"))
        return GroupedList(self.items(name), order, ends)


class _Part:
    """Bytes from a place on."""

    def __init__(self, data: Bytes, start: int):
        self._data, self._start = data, start

    def __getitem__(self, place: slice) -> Any:
        return self._data[self._start + place.start : self._start + place.stop]


def _state(descriptor: int) -> tuple[int, ...]:
    status = os.fstat(descriptor)
    return status.st_ino, status.st_size, status.st_mtime_ns
