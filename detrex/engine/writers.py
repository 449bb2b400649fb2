"""Writes metrics and pictures: always to JSON lines, and to TensorBoard and Weights & Biases if wanted."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from detrex.report.series import main_names
from detrex.runtime.files import replaced_file

logger = logging.getLogger(__name__)

_SECONDS_TO_LOG_IN = 10


class Writer(Protocol):
    """Writes metrics. Packages that it needs are imported by :meth:`open`.

    Attributes:
        shows_pictures: whether :meth:`picture` does anything.
    """

    shows_pictures: bool

    def open(self, iteration: int, config: Mapping[str, Any]) -> None:
        """Called once before the first metrics of a run that continues after ``iteration`` steps."""

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics after ``iteration`` steps."""

    def picture(self, iteration: int, name: str, image: Image.Image) -> None:
        """Writes an RGB picture made after ``iteration`` steps."""

    def close(self) -> None:
        """Called once at the end, also after an error."""


class JsonLinesWriter:
    """One JSON object per line: ``{"iteration": 20, "loss": 1.5, ...}``; null for values that are not finite.

    Lines that cannot be written, because the disk is full, are kept and written with the next ones.
    """

    shows_pictures = False

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._waiting = ""

    def open(self, iteration: int, _config: Mapping[str, Any]) -> None:
        """Drops lines of an earlier run for later iterations, which will be repeated."""
        if not self._path.is_file():
            return
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        with replaced_file(self._path) as temporary:
            kept = "".join(line for line in lines if _is_before(line, iteration))
            temporary.write_text(kept, encoding="utf-8")

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """
        Raises:
            OSError: the line could not be written yet.
        """
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self._waiting += json.dumps({"iteration": iteration, **finite}) + "\n"
        self._append()

    def picture(self, *_: Any) -> None:
        """There are no pictures in JSON."""

    def close(self) -> None:
        """
        Raises:
            OSError: lines could not be written.
        """
        if self._waiting:
            self._append()

    def _append(self) -> None:
        with self._path.open("ab", buffering=0) as file:
            whole = file.seek(0, os.SEEK_END)
            content = self._waiting.encode()
            try:
                written = file.write(content)
                if written != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            except OSError as error:
                file.truncate(whole)  # drop an incomplete line
                raise OSError(error.errno, error.strerror, str(self._path)) from error
        self._waiting = ""


def grouped(names: Iterable[str]) -> dict[str, str]:
    """Names of metrics, each with the name by which TensorBoard groups it.

    Groups are ``train`` (the loss and its parts of the last decoder layer), ``train_STAGE`` (those of other
    layers and of denoising), ``val`` (evaluations) and ``val_ema`` (of averaged weights), ``optimizer``,
    ``time`` and ``memory``.
    """
    names = list(names)
    losses = [n for n in names if n.startswith("loss")]
    parts = main_names(n for n in losses if n != "loss")
    return {name: _in_group(name, parts) for name in names}


def _in_group(name: str, parts: Sequence[str]) -> str:
    if name.startswith("ema/"):
        return f"val_ema/{name.removeprefix('ema/').removeprefix('val/')}"
    if name in ("lr", "grad_norm") or name.startswith(("lr/", "grad_norm/")):
        return f"optimizer/{name}"
    if "/" in name:
        return f"val/{name.removeprefix('val/')}"
    if name.endswith("_time"):
        return f"time/{name}"
    if name.endswith("_mb"):
        return f"memory/{name}"
    matching = [part for part in parts if name.startswith(f"{part}_")]
    if not matching:
        return f"train/{name}"
    part = max(matching, key=len)
    return f"train_{name.removeprefix(part + '_')}/{part}"


class TensorBoardWriter:
    """Scalars, pictures and the config for TensorBoard; see :func:`grouped` for the names of scalars.

    Args:
        directory: for its files.
    """

    shows_pictures = True

    def __init__(self, directory: str | Path):
        self._directory = str(directory)
        self._summary: Any = None

    def open(self, iteration: int, config: Mapping[str, Any]) -> None:
        """
        Raises:
            ImportError: the package tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(_missing("tensorboard")) from error
        self._summary = SummaryWriter(self._directory, purge_step=iteration + 1 if iteration else None)
        text = json.dumps(config, indent=2, default=str)
        self._summary.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), iteration)

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        for name, tag in grouped(metrics).items():
            self._summary.add_scalar(tag, metrics[name], iteration)

    def picture(self, iteration: int, name: str, image: Image.Image) -> None:
        self._summary.add_image(name, np.asarray(image), iteration, dataformats="HWC")
        self._summary.flush()  # otherwise, it may take minutes to appear

    def close(self) -> None:
        if self._summary is not None:
            self._summary.close()


class WandbWriter:
    """Metrics, pictures and the config for Weights & Biases; a resumed run continues the same W&B run.

    The key comes from the environment (``WANDB_API_KEY``) or from ``wandb login``. Without a key, training
    continues without this writer. ``mode="offline"`` needs no key; ``wandb sync`` uploads such runs later.

    Args:
        directory: for its files, and the id of the run.
        project, name, entity: as in ``wandb.init``.
        mode: ``online``, ``offline`` or ``disabled``; None for what ``WANDB_MODE`` says, else ``online``.
    """

    shows_pictures = True

    def __init__(
        self,
        directory: str | Path,
        project: str = "detrex",
        name: str | None = None,
        entity: str | None = None,
        mode: str | None = None,
    ):
        self._directory = Path(directory)
        self._options = {"project": project, "name": name, "entity": entity, "mode": mode}
        self._run: Any = None
        self._step = 0

    def open(self, iteration: int, config: Mapping[str, Any]) -> None:
        """
        Raises:
            ImportError: the package wandb is not installed.
        """
        try:
            import wandb
        except ImportError as error:
            raise ImportError(_missing("wandb")) from error
        self._image = wandb.Image
        marker = self._directory / "wandb_id.txt"
        known = marker.read_text().strip() if iteration and marker.is_file() else None
        # Without a key, wandb would ask for one on a terminal, and training would wait for the answer.
        wandb.setup(settings=wandb.Settings(login_timeout=_SECONDS_TO_LOG_IN))
        self._run = wandb.init(
            dir=str(self._directory), config=dict(config), id=known, resume="allow", **self._options
        )
        marker.write_text(self._run.id)
        self._step = iteration

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """W&B's steps cannot go back: late metrics are logged at the last step, with their ``iteration``."""
        late = {"iteration": iteration} if iteration < self._step else {}
        self._step = max(iteration, self._step)
        self._run.log({**metrics, **late}, step=self._step)

    def picture(self, iteration: int, name: str, image: Image.Image) -> None:
        self._run.log({name: self._image(image)}, step=iteration)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


class Writers:
    """Several writers as one. Training continues if one of them fails.

    A writer that cannot be opened is left out. If one fails later, a single warning names it, and it is tried
    again the next time: a full disk may have room again.
    """

    def __init__(self, writers: Sequence[Writer]):
        self._writers = list(writers)
        self._failing: set[int] = set()  # indices of writers whose failure was logged

    @property
    def show_pictures(self) -> bool:
        """Whether any writer shows pictures."""
        return any(writer.shows_pictures for writer in self._writers)

    def open(self, iteration: int, config: Mapping[str, Any]) -> None:
        for writer in list(self._writers):
            try:
                writer.open(iteration, config)
            except Exception as error:
                logger.warning("%s failed and writes nothing (%s)", type(writer).__name__, _reason(error))
                self._writers.remove(writer)

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        self._each("write", iteration, metrics)

    def picture(self, iteration: int, name: str, image: Image.Image) -> None:
        self._each("picture", iteration, name, image)

    def close(self) -> None:
        self._failing.clear()  # a failure now deserves another warning
        self._each("close")

    def _each(self, method: str, *args: Any) -> None:
        for place, writer in enumerate(self._writers):
            name = type(writer).__name__
            try:
                getattr(writer, method)(*args)
            except Exception as error:  # disk, network, or any error in another package
                if place not in self._failing:
                    logger.warning("%s failed, and is tried again (%s)", name, _reason(error))
                self._failing.add(place)
            else:
                if place in self._failing and method != "close":
                    logger.info("%s writes again", name)
                    self._failing.discard(place)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _is_before(line: str, iteration: int) -> bool:
    try:
        return json.loads(line)["iteration"] <= iteration
    except (ValueError, KeyError, TypeError):  # the last line of a run that was killed while writing
        return False


def _missing(package: str) -> str:
    return (
        f"the writer needs the package {package}: run pip install {package}, "
        f"or set train.writers.{package}.enabled=false"
    )
