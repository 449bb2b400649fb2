"""Times of runs, and what they are told by: medians, spreads and ratios of pairs."""

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
    """What one run took.

    Attributes:
        seconds: of the wall clock or, on a GPU, of its stream from the run's begin to its end.
        processor_seconds: of all threads of this process. On a busy machine it varies less; threads that wait
            for one another count as well.
    """

    seconds: float
    processor_seconds: float


class Clock:
    """Marks moments in the work of a device without making it wait.

    On a GPU marks are events in the current stream: time between two of them is that of the GPU, with its
    waiting for the CPU where that is slower.
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
        """Waits until all work is done; times between marks are not known before."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, start: Mark, end: Mark) -> float:
        """The time from one mark to another, in seconds."""
        return start.elapsed_time(end) / 1e3 if self.device.type == "cuda" else end - start

    def time(self, run: Callable[[], Any], prepare: Callable[[], Any] = lambda: None) -> Duration:
        """Runs once.

        Args:
            run: what is timed.
            prepare: called before, and not timed. The GPU may still be at it while ``run`` begins to queue
                work, so that a short run is not timed by the speed of the CPU.
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
    """Calls all runs in each of several rounds, so that whatever else the machine does slows all of them.

    Args:
        runs: by name. Every second round is in the opposite order, since a run may profit or suffer from the
            one before it.
        repeats: rounds whose results are kept.
        warmup: rounds before those.

    Returns:
        Results of each, round by round: entry i of one and entry i of another are a pair.
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
    """The ratio of each pair: what slowed both in the same moment cancels out."""
    return Spread.from_values([a / b for a, b in zip(numerators, denominators, strict=True)])
