"""Times of runs, summarised by medians, spreads and ratios of pairs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
Mark = Any
"""A moment: seconds of the wall clock, or a CUDA event."""


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of repeated measurements.

    Attributes:
        median, low, high: of all runs; the latter are the smallest and the largest.
    """

    median: float
    low: float
    high: float

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def to_dict(self) -> dict[str, float]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Duration:
    """The duration of one run.

    Attributes:
        seconds: of the wall clock or, on a GPU, of its stream from the begin of the run to its end.
        processor_seconds: of all threads of this process. On a busy machine it varies less; threads that wait
            for one another count as well.
    """

    seconds: float
    processor_seconds: float


class Clock:
    """Marks moments in the work of a device without making it wait.

    On a GPU, marks are events in the current stream: the time between two of them is that of the GPU,
        including
    its waiting for a slower CPU.
    """

    def __init__(self, device: torch.device):
        self.device = device

    def mark(self) -> Mark:
        """This moment in the device's work."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def wait(self) -> None:
        """Waits until all work is done; only then are times between marks known."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, start: Mark, end: Mark) -> float:
        """The time from one mark to another, in seconds."""
        return start.elapsed_time(end) / 1e3 if self.device.type == "cuda" else end - start

    def time(self, run: Callable[[], Any], prepare: Callable[[], Any] = lambda: None) -> Duration:
        """Runs once.

        Args:
            run: the work that is timed.
            prepare: called before, and not timed. The GPU may still work on it while ``run`` begins to queue
                work, so that the CPU does not limit a short run.
        """
        self.wait()
        prepare()
        processor, start = time.process_time(), self.mark()
        run()
        end = self.mark()
        self.wait()
        return Duration(self.seconds(start, end), time.process_time() - processor)


def take_turns(
    runs: Mapping[str, Callable[[], Result]], repeats: int, warmup: int
) -> dict[str, list[Result]]:
    """Calls all runs in each of several rounds, so that other work of the machine slows all of them.

    Args:
        runs: by name. Every second round has the opposite order, because a run may influence the next one.
        repeats: rounds whose results are kept.
        warmup: rounds before those.

    Returns:
        Results of each run, round by round: entries i of two runs are a pair.
    """
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for turn in range(warmup + repeats):
        names = list(runs)
        for name in names if turn % 2 == 0 else reversed(names):
            result = runs[name]()
            if turn >= warmup:
                results[name].append(result)
    return results


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The ratios of pairs, in which anything that slowed both at the same time cancels out."""
    return Spread.from_values([a / b for a, b in zip(numerators, denominators, strict=True)])
