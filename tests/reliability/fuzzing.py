"""Random changes of files, for tests of what becomes of damaged and hostile ones."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FEW, MANY = 60, 5000
_KIBIBYTES_OF_A_GIBIBYTE = 2**20
REASONABLE = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_places = st.integers(0, 4095)
edits = st.lists(
    st.one_of(
        st.tuples(st.just("replace"), _places, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("insert"), _places, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("delete"), _places, st.integers(1, 64)),
        st.tuples(st.just("repeat"), _places, st.integers(1, 64)),
        st.tuples(st.just("flip"), _places, st.integers(0, 7)),
        st.tuples(st.just("end"), _places, st.none()),
    ),
    min_size=1,
    max_size=4,
)
"""Changes of bytes, for :func:`edited`."""


def edited(data: bytes, changes: list[tuple]) -> bytes:
    """``data`` after changes drawn from :data:`edits`."""
    for kind, place, value in changes:
        at = place % max(1, len(data))
        if kind == "replace":
            data = data[:at] + value + data[at + len(value) :]
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + value :]
        elif kind == "repeat":
            data = data[: at + value] + data[at:]
        elif kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ (1 << value)]) + data[at + 1 :]
        elif kind == "end":
            data = data[:at]
    return data


@contextmanager
def within_a_gibibyte() -> Iterator[None]:
    """Inside the block this process's memory may grow by less than that."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _KIBIBYTES_OF_A_GIBIBYTE
