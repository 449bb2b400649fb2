"""Writes checkpoints of a run atomically, keeps the last few, and finds the newest readable one."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from detrex.checkpoint.weights import (
    WEIGHTS_NAME,
    CheckpointError,
    read_torch_file,
    read_weights,
    write_torch_file,
    write_weights,
)
from detrex.runtime.files import remove_leftovers, replaced_directory, replaced_file

# Names in the folder of a run.
CHECKPOINTS = "checkpoints"
FINAL_WEIGHTS = "model_final.safetensors"
FINAL_AVERAGE = "model_final_ema.safetensors"
LAST_MARKER = "last_checkpoint"
BEST_MARKER = "best_checkpoint"
STATE_NAME = "state.pt"
AVERAGE_NAME = "model_ema.safetensors"
_NAME = re.compile(r"iteration_(\d+)$")

logger = logging.getLogger(__name__)


@dataclass
class Checkpoint:
    """The content of one checkpoint, on the CPU.

    Attributes:
        path: its directory.
        iteration: training steps done.
        weights: tensors of the model by name.
        metadata: text beside the weights, such as class names.
        state: training state, as given to :meth:`Checkpointer.save`.
        average: averaged weights, if the run keeps them.
    """

    path: Path
    iteration: int
    weights: dict[str, Tensor]
    metadata: dict[str, str]
    state: dict[str, Any]
    average: dict[str, Tensor] | None = None


class Checkpointer:
    """Keeps the checkpoints of a run in ``directory``.

    A checkpoint is a directory ``iteration_0001000`` with ``model.safetensors``, ``state.pt`` and, for a run
    that averages its weights, ``model_ema.safetensors``; it appears under that name only when all files are
    complete on the disk. The file ``last_checkpoint`` names the newest one, ``best_checkpoint`` (JSON) the
    best one. Call the methods that write on one process only.

    Attributes:
        in_use: iterations whose checkpoints must not be deleted, however old they are.
    """

    def __init__(self, directory: str | Path, keep: int = 3):
        """
        Args:
            directory: for the checkpoints; created by the first save.
            keep: how many of the newest ones to keep, at least 1. The best one is kept in addition.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, not {keep}")
        self.directory = Path(directory)
        self.keep = keep
        self.in_use: set[int] = set()

    def save(
        self,
        iteration: int,
        weights: Mapping[str, Tensor],
        state: dict[str, Any],
        metadata: Mapping[str, str],
        average: Mapping[str, Tensor] | None = None,
    ) -> Path:
        """Writes a checkpoint, then deletes those that are no longer kept.

        Args:
            iteration: training steps done.
            weights: the model's state dict.
            state: training state of tensors and plain values (readable with ``weights_only=True``).
            metadata: text for the files of weights.
            average: averaged weights by the same names.

        Returns:
            The directory of the checkpoint.

        Raises:
            OSError: the checkpoint could not be written, for example because the disk is full; earlier
                checkpoints stay as they were.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.directory)
        path = self.path_of(iteration)
        with replaced_directory(path) as temporary:
            metadata = {**metadata, "iteration": str(iteration)}
            write_weights(temporary / WEIGHTS_NAME, weights, metadata)
            if average is not None:
                write_weights(temporary / AVERAGE_NAME, average, metadata)
            write_torch_file(temporary / STATE_NAME, state)
        self._write_marker(LAST_MARKER, path.name)
        self._prune(newest=path)
        return path

    def load(self, path: str | Path) -> Checkpoint:
        """Reads a complete checkpoint directory.

        Raises:
            FileNotFoundError: a file is missing.
            CheckpointError: a file is truncated or damaged.
        """
        path = Path(path)
        weights, metadata = read_weights(path)
        if not (path / STATE_NAME).is_file():
            raise FileNotFoundError(f"no training state at {path / STATE_NAME}")
        state = read_torch_file(path / STATE_NAME)
        if not metadata.get("iteration", "").isdecimal():
            raise CheckpointError(f"{path / WEIGHTS_NAME} does not say its iteration; it is no part of a run")
        if not isinstance(state, dict):
            raise CheckpointError(f"{path / STATE_NAME} holds no training state")
        average_file = path / AVERAGE_NAME
        average = read_weights(average_file)[0] if average_file.is_file() else None
        return Checkpoint(path, int(metadata["iteration"]), weights, metadata, state, average)

    def resume(self) -> Checkpoint | None:
        """The newest checkpoint that can be read, or None if there are no checkpoints.

        A checkpoint that cannot be read is named in a warning, and the one before it is tried.

        Raises:
            CheckpointError: there are checkpoints, but none can be read.
        """
        candidates = self.candidates()
        for path in candidates:
            try:
                return self.load(path)
            except (CheckpointError, FileNotFoundError) as error:
                logger.warning("%s\nTrying the checkpoint before it.", error)
        if candidates:
            raise CheckpointError(
                f"none of the {len(candidates)} checkpoints in {self.directory} can be read"
            )
        return None

    def candidates(self) -> list[Path]:
        """The checkpoints from which to continue, the best choice first.

        These are the marked one and those before it, newest first; all of them if no marker is usable.
        """
        paths = self.paths()[::-1]
        marker = self.directory / LAST_MARKER
        if not marker.is_file():
            return paths
        name = marker.read_bytes().decode(errors="replace").strip()
        marked = [path for path in paths if path.name == name]
        if marked:
            return paths[paths.index(marked[0]) :]
        logger.warning("%s names %r, which is not there; trying the newest checkpoint", marker, name[:80])
        return paths

    def path_of(self, iteration: int) -> Path:
        """The directory of the checkpoint after ``iteration`` steps, whether it exists or not."""
        return self.directory / f"iteration_{iteration:07d}"

    def mark_best(self, iteration: int, metric: str, value: float) -> None:
        """Makes the existing checkpoint after ``iteration`` steps the best one: it is never deleted."""
        content = {"checkpoint": self.path_of(iteration).name, "metric": metric, "value": value}
        self._write_marker(BEST_MARKER, json.dumps(content))

    def best(self) -> dict[str, Any] | None:
        """``checkpoint`` (directory name), ``metric`` and ``value`` of the best checkpoint, or None."""
        marker = self.directory / BEST_MARKER
        if not marker.is_file():
            return None
        try:
            content = json.loads(marker.read_text(encoding="utf-8"))
            return {key: content[key] for key in ("checkpoint", "metric", "value")}
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s is damaged (%s); no checkpoint counts as the best", marker, error)
            return None

    def paths(self) -> list[Path]:
        """All checkpoints, oldest first."""
        found = [path for path in self.directory.glob("iteration_*") if _NAME.match(path.name)]
        return sorted(found, key=iteration_of)

    def _prune(self, newest: Path) -> None:
        # Checkpoints after the newest one are unreadable, or from a run that was resumed before them.
        past = [path for path in self.paths() if iteration_of(path) <= iteration_of(newest)]
        kept = {path.name for path in past[-self.keep :]} | {self.path_of(i).name for i in self.in_use}
        if (best := self.best()) is not None:
            kept.add(best["checkpoint"])
        for path in self.paths():
            if path.name not in kept:
                shutil.rmtree(path)

    def _write_marker(self, name: str, text: str) -> None:
        with replaced_file(self.directory / name) as temporary:
            temporary.write_text(text + "\n")


def iteration_of(path: Path) -> int:
    """The number of training steps in the name of a checkpoint's folder."""
    return int(path.name.rpartition("_")[2])
