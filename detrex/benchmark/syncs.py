"""Counts how often a run makes the processor wait for the device."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from detrex.benchmark.model import Setup, Subject

_PACKAGE = Path(__file__).resolve().parents[1]
_aten = torch.ops.aten
# Operators whose results are needed on the processor: a number, or the size of a tensor.
_WAITING = {
    _aten._local_scalar_dense,
    _aten.is_nonzero,
    _aten.equal,
    _aten.nonzero,
    _aten.masked_select,
    _aten.unique_dim,
    _aten.unique_consecutive,
    _aten._unique2,
    _aten.repeat_interleave,
}
_BY_INDEX = {_aten.index, _aten.index_put, _aten.index_put_}


class SyncCounter(TorchDispatchMode):
    """Counts operations that would make the processor wait if their tensors were on a GPU.

    It runs anywhere, and returns an upper bound: work that the processor does even with a GPU, such as
        matching,
    counts as well. Waiting that no operation shows, such as copies, does not count.

    Attributes:
        places: counts by line of this package and operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = func.overloadpacket
        if packet in _WAITING or (packet in _BY_INDEX and _chooses_by_condition(args[1])):
            self.places[_place(), packet.__name__] += 1
        return func(*args, **(kwargs or {}))


def count_syncs(setup: Setup) -> dict[str, Any]:
    """Counts in one run of a model, after one that warms up.

    On a GPU, it counts warnings of ``torch.cuda.set_sync_debug_mode``; elsewhere, see :class:`SyncCounter`.

    Returns:
        For JSON: ``count``, ``is_bound`` (whether it is an upper bound) and ``places``, most frequent first.
    """
    subject = Subject(setup)
    subject.run()
    on_gpu = subject.device.type == "cuda"
    places = _warned(subject.step) if on_gpu else _dispatched(subject.step)
    return {
        "mode": "training" if setup.training else "inference",
        "count": places.total(),
        "is_bound": not on_gpu,
        "places": [{"place": p, "operation": o, "count": n} for (p, o), n in places.most_common()],
    }


def _dispatched(step: Callable[[], None]) -> Counter[tuple[str, str]]:
    with SyncCounter() as counter:
        step()
    return counter.places


def _warned(step: Callable[[], None]) -> Counter[tuple[str, str]]:
    places: Counter[tuple[str, str]] = Counter()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # Called when the warning is raised, so that the stack is that of the operation.
            warnings.showwarning = lambda message, *_, **__: (
                places.update([(_place(), "synchronises")]) if "synchron" in str(message) else None
            )
            step()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return places


def _chooses_by_condition(indices: Any) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _place() -> str:
    """The innermost line of this package, except these benchmarks, that is being executed."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE) and "benchmark" not in path.parts:
            return f"{path.relative_to(_PACKAGE.parent).as_posix()}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]  # None at the bottom
    return "elsewhere"
