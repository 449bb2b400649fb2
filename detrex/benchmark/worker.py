"""Runs models in separate processes, alone or in turns.

Processes are needed because the peak memory of a process is meaningful only if nothing else ran in it, and
two models in one process share an allocator, its caches and everything that the first one has warmed up or
filled. Turns are needed because other work, the clock and the temperature of the machine change within
seconds: of two successive runs, neither time is right, but their ratio is. A process that is not running its
turn waits for a message and costs only its memory.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any

from detrex.benchmark.model import Run, Setup, Subject
from detrex.benchmark.timing import Spread, ratios, take_turns
from detrex.runtime.processes import clean_start_method


class Worker:
    """A :class:`~detrex.benchmark.model.Subject` in another process; use it with ``with``.

    It is built at once, while the caller continues. Errors in the process are raised here.
    """

    def __init__(self, setup: Setup):
        method = clean_start_method("detrex.engine", "detrex.benchmark.model")
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context(method))
        self._built = self._process.submit(_build, setup)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.shutdown()

    def wait(self) -> None:
        """Waits until the subject is built."""
        _result(self._built)

    def run(self) -> Run:
        """Runs the subject once."""
        return _result(self._process.submit(_run))

    def facts(self) -> dict[str, Any]:
        """The machine and the memory in use."""
        return _result(self._process.submit(_facts))


def _result(future: Future) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise ChildProcessError(
            "the process of a benchmark was killed; it may have used too much memory: take smaller images or "
            "batches"
        ) from None


_subject: Subject
"""The subject of this process, if it is a worker."""


def _build(setup: Setup) -> None:
    global _subject
    _subject = Subject(setup)


def _run() -> Run:
    return _subject.run()


def _facts() -> dict[str, Any]:
    return _subject.facts()


def measure_models(setups: Mapping[str, Setup], repeats: int = 5, warmup: int = 1) -> dict[str, Any]:
    """Times models that take turns.

    Args:
        setups: by name.
        repeats, warmup: number of runs of each model that count, and number of runs before them.

    Returns:
        For JSON: the measurements of each model by name (seconds; bytes) and, in ``ratios``, the times of the
        first divided by those of every other (above 1: the other is faster).
    """
    with ExitStack() as stack:
        for setup in setups.values():
            setup.config()  # shows errors at once
        workers = {name: stack.enter_context(Worker(setup)) for name, setup in setups.items()}
        for worker in workers.values():
            worker.wait()
        runs = take_turns({name: worker.run for name, worker in workers.items()}, repeats, warmup)
        facts = {name: worker.facts() for name, worker in workers.items()}
    first, *others = setups
    seconds = {name: [r.duration.seconds for r in setup_runs] for name, setup_runs in runs.items()}
    return {
        "models": {name: {**_summary(setups[name], runs[name]), **facts[name]} for name in setups},
        "ratios": {name: ratios(seconds[first], seconds[name]).to_dict() for name in others},
    }


def _summary(setup: Setup, runs: list[Run]) -> dict[str, Any]:
    seconds = [run.duration.seconds for run in runs]
    return {
        "config_file": setup.config_file,
        "overrides": list(setup.overrides),
        "mode": "training" if setup.training else "inference",
        "size": list(setup.size),
        "batch": setup.batch,
        "objects": setup.objects if setup.training else None,
        "runs": seconds,
        "seconds": Spread.from_values(seconds).to_dict(),
        "processor_seconds": Spread.from_values([r.duration.processor_seconds for r in runs]).to_dict(),
        "images_per_second": setup.batch / Spread.from_values(seconds).median,
        "parts": {
            part: Spread.from_values([r.parts[part] for r in runs]).to_dict() for part in runs[0].parts
        },
    }
