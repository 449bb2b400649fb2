"""Models in processes of their own, alone or in turns.

Why processes: the peak of a process's memory is known only if nothing else ran in it, and two models in one
process share an allocator, its caches and whatever else the first has warmed up or filled. Why in turns: the
machine's other work, its clock and its temperature change within seconds, so that of two runs one after
another neither is right, but their ratio is. The process whose turn it is not waits for a message and costs
nothing but its memory.
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
    """A :class:`~detrex.benchmark.model.Subject` in another process; to be used with ``with``.

    It is built at once, while the caller goes on. What goes wrong over there is raised here.
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
"""That of this process, if it is a worker's."""


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
        repeats, warmup: runs of each that count, and before those.

    Returns:
        For JSON: the measurements of each by name (seconds; bytes) and, in ``ratios``, the times of the first
        divided by those of every other (above 1: the other is faster).
    """
    with ExitStack() as stack:
        for setup in setups.values():
            setup.config()  # what is wrong with it shows at once
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
