"""Profiles the time and memory of a few steps."""

from __future__ import annotations

import gzip
import logging
import shutil
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, record_function, schedule

from detrex.engine.hooks.hook import Hook, Training
from detrex.runtime.distributed import is_main_process

logger = logging.getLogger(__name__)

_ROWS = 30  # rows of the table


class ProfilerHook(Hook):
    """Profiles the steps from ``start`` to ``stop``, counted from 1 and inclusive, on the main process.

    It writes two files: ``steps_START_to_STOP.json.gz``, a trace to open at https://ui.perfetto.dev or
    chrome://tracing, and ``.txt``, a table of the operators that take longest. A run that ends earlier writes
    what it has. Profiled steps are slower, and each takes memory, so profile only a few.

    Args:
        start, stop: the first and the last step.
        directory: for the files; created if need be.

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

    def before_train(self, trainer: Training) -> None:
        before = self._start - 1 - trainer.iteration
        if before < 0 or not is_main_process():
            return  # a resumed run is past the first of these steps
        on_gpu = [ProfilerActivity.CUDA] if trainer.device.type == "cuda" else []
        warmup = min(before, 1)
        self._profile = profile(
            activities=[ProfilerActivity.CPU, *on_gpu],
            schedule=schedule(
                wait=before - warmup, warmup=warmup, active=self._stop - self._start + 1, repeat=1
            ),
            on_trace_ready=self._save,
            profile_memory=True,
            record_shapes=True,
        )
        self._profile.start()

    def before_step(self, trainer: Training) -> None:
        if self._profile is not None:
            self._step = record_function(f"step {trainer.iteration + 1}")
            self._step.__enter__()

    def after_step(self, trainer: Training) -> None:
        if self._profile is not None:
            self._end_step()
            self._profile.step()
            if trainer.iteration == self._stop:
                self.close()

    def close(self) -> None:
        if self._profile is not None:
            self._end_step()
            self._profile.stop()
            self._profile = None

    def _end_step(self) -> None:
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None

    def _save(self, finished: profile) -> None:
        try:
            self._write(finished)
        except (OSError, RuntimeError) as error:  # PyTorch raises RuntimeError if the disk is full
            logger.warning("the profile %s could not be written: %s", self._path, error)

    def _write(self, finished: profile) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        trace, plain = self._path.with_suffix(".json.gz"), self._path.with_suffix(".json")
        try:
            finished.export_chrome_trace(str(plain))
            # PyTorch would compress the trace line by line, which takes minutes for a step of a large model.
            with plain.open("rb") as text, gzip.open(trace, "wb", compresslevel=3) as compressed:
                shutil.copyfileobj(text, compressed, 1 << 20)
        finally:  # the uncompressed trace is large, and a full disk has no room for it
            plain.unlink(missing_ok=True)
        on_gpu = ProfilerActivity.CUDA in finished.activities
        table = finished.key_averages().table(
            sort_by=f"self_{'device' if on_gpu else 'cpu'}_time_total", row_limit=_ROWS
        )
        self._path.with_suffix(".txt").write_text(table, encoding="utf-8")
        logger.info("profile of the steps %d to %d: %s\n%s", self._start, self._stop, trace, table)
