"""A list of Python objects that costs no memory per worker process."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np


class PackedList:
    """Immutable list, each item pickled into one shared byte array.

    A plain list of dictionaries would be copied into every worker bit by bit, because reading an object
    writes its reference count; one array stays shared between forked processes.
    """

    def __init__(self, items: Iterable[Any]):
        pickled = [pickle.dumps(item, protocol=5) for item in items]
        self._ends = np.cumsum([len(p) for p in pickled], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(pickled), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a list of {len(self)}")
        start = self._ends[index - 1] if index else 0
        return pickle.loads(self._bytes[start : self._ends[index]])
