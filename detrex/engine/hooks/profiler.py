"""Where the time and memory of a few steps go."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from detrex.engine.hooks.base import Hook
from detrex.runtime.distributed import is_main_process

if TYPE_CHECKING:
    from detrex.engine.trainer import Trainer

logger = logging.getLogger(__name__)

_ROWS = 30  # of the table


class ProfilerHook(Hook):
    """Profiles the steps ``start`` to ``stop``, counted from 1 and both included, on the main process.

    Two files say what was found: ``steps_START_to_STOP.json.gz``, a trace to open at https://ui.perfetto.dev
    or chrome://tracing, and ``.txt``, a table of the operators that take longest. A run that ends before
    writes what it has. Profiled steps are slower, and every one takes memory: profile a few.

    Args:
        start, stop: steps.
        directory: for the files; made if need be.

    Raises:
        ValueError: there are no such steps.
    """

    def __init__(self, start: int, stop: int, directory: Path):
        if not 1 <= start <= stop:
            raise ValueError(f"train.profiler: there are no steps from start={start} to stop={stop}")
        self._start, self._stop = start, stop
        self._path = directory / f"steps_{start}_to_{stop}"
        self._profile: profile | None = None
        self._step: record_function | None = None

    def before_step(self, trainer: Trainer) -> None:
        step = trainer.iteration + 1
        if step == self._start and is_main_process():
            activities = [ProfilerActivity.CPU]
            if trainer.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities, profile_memory=True, record_shapes=True)
            self._profile.start()
        if self._profile is not None:
            self._step = record_function(f"step {step}")
            self._step.__enter__()

    def after_step(self, trainer: Trainer) -> None:
        if self._profile is None:
            return
        self._end_step()
        if trainer.iteration == self._stop:
            if trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)
            self._save()

    def close(self) -> None:
        if self._profile is not None:
            self._end_step()
            self._save()

    def _end_step(self) -> None:
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None

    def _save(self) -> None:
        finished, self._profile = self._profile, None
        finished.stop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        trace = self._path.with_suffix(".json.gz")
        finished.export_chrome_trace(str(trace))
        on_gpu = ProfilerActivity.CUDA in finished.activities
        table = finished.key_averages().table(
            sort_by=f"self_{'device' if on_gpu else 'cpu'}_time_total", row_limit=_ROWS
        )
        self._path.with_suffix(".txt").write_text(table, encoding="utf-8")
        logger.info("profile of the steps %d to %d: %s\n%s", self._start, self._stop, trace, table)
