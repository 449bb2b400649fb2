"""Lists of plain data that cost no memory per worker process."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np

_COMPACT = json.JSONEncoder(separators=(",", ":"))


class Bytes(Protocol):
    """What texts are read from: memory, or a file."""

    def __getitem__(self, place: slice) -> Any: ...


def packed(item: Any) -> bytes:
    """Plain data (what JSON has, numbers that are not finite too) as a text."""
    return _COMPACT.encode(item).encode()


def ends_of(lengths: array) -> np.ndarray:
    """Where each of consecutive texts of these lengths ends, int64."""
    return np.cumsum(np.asarray(lengths, np.int64), dtype=np.int64)


class PackedList:
    """Immutable list of plain data, each item a JSON text in one shared array or file.

    A plain list of dictionaries would be copied into every worker bit by bit, because reading an object
    writes its reference count. Tuples come back as lists.

    Args:
        data: all texts, one after another: an array of bytes, or something like
            :class:`detrex.data.annotation_store.FileBytes` that reads slices from a file.
        ends: (N,) int64, where each text ends.
    """

    def __init__(self, data: Bytes, ends: np.ndarray):
        self._data, self._ends = data, ends

    @classmethod
    def of(cls, items: Iterable[Any]) -> PackedList:
        """A list in memory."""
        texts = [packed(item) for item in items]
        ends = ends_of(array("q", map(len, texts)))
        return cls(np.frombuffer(b"".join(texts), np.uint8), ends)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a list of {len(self)}")
        start = int(self._ends[index - 1]) if index else 0
        return json.loads(bytes(self._data[start : int(self._ends[index])]))

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


class GroupedList:
    """Immutable list of lists: the items of each group, in their order.

    Args:
        items: of all groups, in any order.
        order: (N,) indices into ``items``, sorted by group.
        ends: (G,) int64, where each group ends in ``order``.
    """

    def __init__(self, items: PackedList, order: np.ndarray, ends: np.ndarray):
        self._items, self._order, self._ends = items, order, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, group: int) -> list[Any]:
        if not 0 <= group < len(self):
            raise IndexError(f"group {group} of {len(self)}")
        start = self._ends[group - 1] if group else 0
        return [self._items[int(k)] for k in self._order[start : self._ends[group]]]
