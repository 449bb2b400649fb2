"""Training as a program of its own, which tests can stop."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Program:
    """``tools/train_net.py`` with the dummy's config; killed at the end of the block, if it still runs.

    Args:
        output_dir: of the run.
        overrides: of the config.
        options: before them.
        config: another file.
    """

    def __init__(
        self,
        output_dir: Path,
        *overrides: str,
        options: list[str] | None = None,
        config: Path | str = "tests/engine/dummy_config.py",
    ):
        command = [sys.executable, "-u", "tools/train_net.py", "--config-file", str(config), *(options or [])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, f"train.output_dir={output_dir}", *overrides],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, text: str, timeout: float = 120) -> None:
        """Reads on until a line has ``text``.

        Raises:
            AssertionError: the program ended without it, or takes too long.
        """
        until = time.monotonic() + timeout
        while True:
            line = self._lines.get(timeout=max(0.1, until - time.monotonic()))
            assert line is not None, f"ended with {self.process.wait()}:\n{self.output}"
            self.output += line
            if text in line:
                return

    def end(self, timeout: float = 120) -> int:
        """The exit code; the whole output is in ``output`` then."""
        code = self.process.wait(timeout=timeout)
        while (line := self._lines.get(timeout=10)) is not None:
            self.output += line
        return code

    def stop(self, number: int, all_processes: bool = False, timeout: float = 120) -> int:
        """Sends a signal, to the program alone or to all its processes; returns the exit code."""
        if all_processes:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.end(timeout)
