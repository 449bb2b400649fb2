"""The checked content of an annotation file as one file or block of memory, read record by record.

Records of plain data, each in MessagePack, follow one another; then come arrays, a header and a checksum.
Nothing in it is code.
"""

from __future__ import annotations

import io
import json
import os
import struct
import threading
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import numpy as np

from detrex.data.errors import DataError

_MARK = b"detrexA1"
_PLACES = struct.Struct("<8sQQ")  # mark, where the arrays begin, where the header begins
_CHECKSUM = struct.Struct("<I")  # of all bytes before it
_CHUNK = 1 << 20
_ENDS = "record_ends"
_MOVING = threading.Lock()  # held during seek and read, if the system cannot read at a position

Record = TypeVar("Record")


class DamagedStoreError(Exception):
    """A file is not a complete store."""


class Bytes(Protocol):
    """Bytes in memory or in a file, from which records are read."""

    def __getitem__(self, place: slice, /) -> Any: ...


class Writable(Protocol):
    """A file that a store is written to."""

    def write(self, data: bytes | memoryview, /) -> int: ...

    def flush(self) -> None: ...


class Records(Generic[Record]):
    """Immutable list of plain data, whose items are encoded in one shared block of memory or file.

    A plain list of objects would gradually be copied into every worker, because reading an object writes its
    reference count.

    Args:
        data: all encoded items, one after another.
        ends: (N,) int64, the end of each item.
        kind: the type of the items.
    """

    def __init__(self, data: Bytes, ends: np.ndarray, kind: type[Record]):
        self._data, self._ends, self._kind = data, ends, kind

    @classmethod
    def in_memory(cls, items: Iterable[Record], kind: type[Record]) -> Records[Record]:
        """A list in memory that holds these items."""
        texts = [msgspec.msgpack.encode(item) for item in items]
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(texts), np.uint8), ends, kind)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a list of {len(self)}")
        start = int(self._ends[index - 1]) if index else 0
        return msgspec.msgpack.decode(bytes(self._data[start : int(self._ends[index])]), type=self._kind)

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def part(self, start: int, stop: int, kind: type[Any]) -> Records[Any]:
        """The items from ``start`` up to, but excluding, ``stop``, as another type."""
        offset = int(self._ends[start - 1]) if start else 0
        return Records(_Shifted(self._data, offset), self._ends[start:stop] - offset, kind)


class StoreWriter:
    """Writes a store to an open file, record by record."""

    def __init__(self, file: Writable):
        self._file = _Checked(file)
        self._lengths = array("q")
        self._encode = msgspec.msgpack.Encoder().encode

    def __len__(self) -> int:
        """The number of records."""
        return len(self._lengths)

    def add(self, record: Any) -> None:
        """Appends a record."""
        self._lengths.append(self._file.write(self._encode(record)))

    def close(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Completes the store.

        Args:
            header: plain data that JSON can represent.
            arrays: by name.
        """
        ends = np.cumsum(np.asarray(self._lengths, np.int64), dtype=np.int64)
        arrays = {_ENDS: ends, **arrays}
        arrays_at = self._file.size
        for values in arrays.values():
            np.lib.format.write_array(self._file, np.ascontiguousarray(values), allow_pickle=False)
        header_at = self._file.size
        self._file.write(json.dumps({"arrays": list(arrays), "content": header}).encode())
        self._file.write(_PLACES.pack(_MARK, arrays_at, header_at))
        self._file.write(_CHECKSUM.pack(self._file.checksum))
        self._file.flush()


class FileBytes:
    """The bytes of a file, whose slices are read when they are needed.

    The file is not mapped: pages that were read belong to the system's cache and to no process. Forked
    processes share the open file; other processes open it again.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = self.path.open("rb", buffering=0)
        self._state = _state(self._file.fileno())

    def __len__(self) -> int:
        return self._state[1]

    def __getitem__(self, place: slice, /) -> bytes:
        data = self._read(place.stop - place.start, place.start)
        if len(data) != place.stop - place.start:
            raise DataError(f"{self.path} was changed while it was in use. Start again.")
        return data

    def _read(self, length: int, start: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), length, start)
        with _MOVING:  # Windows, where no forked process shares the position in the file
            self._file.seek(start)
            return self._file.read(length)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "state": self._state}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.path, self._state = kept["path"], kept["state"]
        self._file = self.path.open("rb", buffering=0)
        if self._state != _state(self._file.fileno()):
            raise DataError(f"{self.path} was replaced while it was in use. Start again.")


class Store:
    """Reads a store.

    Args:
        data: :class:`FileBytes`, or an array of bytes in memory.

    Attributes:
        header, arrays: see :meth:`StoreWriter.close`.

    Raises:
        DamagedStoreError: the store is not complete.
    """

    def __init__(self, data: FileBytes | np.ndarray):
        end = len(data) - _CHECKSUM.size
        places_at = end - _PLACES.size
        if places_at < 0:
            raise DamagedStoreError("it is cut short")
        found = 0
        for start in range(0, end, _CHUNK):
            found = zlib.crc32(bytes(data[start : min(start + _CHUNK, end)]), found)
        if (found,) != _CHECKSUM.unpack(bytes(data[end : len(data)])):
            raise DamagedStoreError("its checksum is another one")
        mark, arrays_at, header_at = _PLACES.unpack(bytes(data[places_at:end]))
        if mark != _MARK:
            raise DamagedStoreError("it is of another format")
        head = json.loads(bytes(data[header_at:places_at]))
        self.header: dict[str, Any] = head["content"]
        content = io.BytesIO(bytes(data[arrays_at:header_at]))
        self.arrays: dict[str, np.ndarray] = {
            name: np.lib.format.read_array(content, allow_pickle=False) for name in head["arrays"]
        }
        self._data = data

    def records(self, start: int, stop: int, kind: type[Record]) -> Records[Record]:
        """The records from ``start`` up to, but excluding, ``stop``, which are of one type."""
        return Records(self._data, self.arrays[_ENDS], kind).part(start, stop, kind)


class _Shifted:
    """A file's bytes from a position on."""

    def __init__(self, data: Bytes, start: int):
        self._data, self._start = data, start

    def __getitem__(self, place: slice, /) -> Any:
        return self._data[self._start + place.start : self._start + place.stop]


class _Checked:
    """A file to write to, which counts its bytes and their checksum."""

    def __init__(self, file: Writable):
        self._file, self.size, self.checksum = file, 0, 0

    def write(self, data: bytes | memoryview) -> int:
        self.checksum = zlib.crc32(data, self.checksum)
        written = self._file.write(data)
        self.size += written
        return written

    def flush(self) -> None:
        self._file.flush()


def _state(descriptor: int) -> tuple[int, ...]:
    status = os.fstat(descriptor)
    return status.st_ino, status.st_size, status.st_mtime_ns
