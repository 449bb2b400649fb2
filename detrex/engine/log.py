"""Sends log messages to ``log.txt`` and the console; a terminal also has a progress bar."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from detrex.runtime.distributed import is_main_process, rank

METRICS_LOGGER = "detrex.metrics"
"""Logger of lines with losses; a terminal shows these in the progress bar instead."""

_OURS = ("detrex", "projects")
_PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def run_logging(output_dir: str | Path, console: Console | None = None) -> Iterator[Console]:
    """Sends log messages to ``output_dir/log.txt`` and the console while the block runs.

    If there are several processes, the main one writes the file; the others show only warnings, on stderr.

    Args:
        output_dir: created if need be.
        console: by default one on stdout.

    Returns:
        The console, for a progress display.
    """
    console = console or Console()
    handlers = _main_handlers(Path(output_dir), console) if is_main_process() else [_other_handler()]
    root = logging.getLogger()
    for handler in handlers:
        root.addHandler(handler)
    levels = {name: logging.getLogger(name).level for name in _OURS}
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield console
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class _TerminalHandler(logging.Handler):
    """Prints messages above a progress bar without wrapping or indenting them, so that tables stay intact."""

    _STYLES = {logging.WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}

    def __init__(self, console: Console):
        super().__init__()
        self._console = console
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        style = self._STYLES.get(record.levelno)
        self._console.print(self.format(record), style=style, markup=False, highlight=False, soft_wrap=True)


class _LogFile(logging.FileHandler):
    """A log file that drops lines while the disk is full, and then reports their number."""

    _lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._lost:
            before, self._lost = self._lost, 0
            content = {"levelname": "WARNING", "levelno": logging.WARNING, "name": __name__}
            super().emit(logging.makeLogRecord({**content, "msg": f"up to {before} lines are missing here"}))
            if self._lost:
                self._lost = before + 1
                return
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            self._lost += 1
        else:
            super().handleError(record)

    def close(self) -> None:
        try:
            super().close()
        except OSError:
            pass


def _main_handlers(output_dir: Path, console: Console) -> list[logging.Handler]:
    output_dir.mkdir(parents=True, exist_ok=True)
    file = _LogFile(output_dir / "log.txt", encoding="utf-8")
    file.setFormatter(logging.Formatter(_PLAIN))
    shown: logging.Handler
    if console.is_terminal:
        shown = _TerminalHandler(console)
        shown.addFilter(lambda record: record.name != METRICS_LOGGER)
    else:
        shown = logging.StreamHandler(sys.stdout)
        shown.setFormatter(logging.Formatter(_PLAIN))
    shown.setLevel(logging.INFO)
    return [file, shown]


def _other_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"process {rank()}: {_PLAIN}"))
    handler.setLevel(logging.WARNING)
    return handler
