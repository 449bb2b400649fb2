"""Where metrics and pictures go: JSON lines always, TensorBoard and Weights & Biases if asked for."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from detrex.runtime.files import replaced_file

logger = logging.getLogger(__name__)

_SECONDS_TO_LOG_IN = 10


class Writer(Protocol):
    """Keeps metrics somewhere. What it needs beyond this package is imported by :meth:`open`.

    Attributes:
        shows_pictures: whether :meth:`picture` does anything.
    """

    shows_pictures: bool

    def open(self, iteration: int, config: Mapping[str, Any]) -> None:
        """Called once before the first metrics of a run that continues after ``iteration`` steps."""

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Keeps the metrics after ``iteration`` steps."""

    def picture(self, iteration: int, name: str, image: Image.Image) -> None:
        """Keeps an RGB picture made after ``iteration`` steps."""

    def close(self) -> None:
        """Called once at the end, after an error too."""


class JsonLinesWriter:
    """One JSON object per line: ``{"iteration": 20, "loss": 1.5, ...}``; null for what is not finite."""

    shows_pictures = False

    def __init__(self, path: str | Path):
        self._path = Path(path)

    def open(self, iteration: int, _config: Mapping[str, Any]) -> None:
        """Drops what an earlier run wrote for later iterations, which will come again."""
        if not self._path.is_file():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        with replaced_file(self._path) as temporary:
            kept = "".join(line for line in lines if _is_before(line, iteration))
            temporary.write_text(kept, encoding="utf-8")

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"iteration": iteration, **finite}) + "\n")

    def picture(self, *_: Any) -> None:
        """There are no pictures in JSON."""

    def close(self) -> None:
        """Nothing is left open."""


class TensorBoardWriter:
    """Scalars, pictures and the config for TensorBoard.

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
        for name, value in metrics.items():
            self._summary.add_scalar(name, value, iteration)

    def picture(self, iteration: int, name: str, image: Image.Image) -> None:
        self._summary.add_image(name, np.asarray(image), iteration, dataformats="HWC")
        self._summary.flush()  # else it may take minutes to be seen

    def close(self) -> None:
        if self._summary is not None:
            self._summary.close()


class WandbWriter:
    """Metrics, pictures and the config for Weights & Biases; a resumed run goes on in the same W&B run.

    The key is read from the environment (``WANDB_API_KEY``) or from what ``wandb login`` has stored. Without
    one training goes on without this writer. ``mode="offline"`` needs none; ``wandb sync`` uploads such runs
    later.

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
        # Without a key, wandb asks for one where there is a terminal; training is not to wait for the answer.
        wandb.setup(settings=wandb.Settings(login_timeout=_SECONDS_TO_LOG_IN))
        self._run = wandb.init(
            dir=str(self._directory), config=dict(config), id=known, resume="allow", **self._options
        )
        marker.write_text(self._run.id)

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=iteration)

    def picture(self, iteration: int, name: str, image: Image.Image) -> None:
        self._run.log({name: self._image(image)}, step=iteration)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


class Writers:
    """Several writers as one. A writer that fails is named in a warning and left out; training goes on."""

    def __init__(self, writers: Sequence[Writer]):
        self._writers = list(writers)

    @property
    def show_pictures(self) -> bool:
        """Whether pictures are worth making."""
        return any(writer.shows_pictures for writer in self._writers)

    def open(self, iteration: int, config: Mapping[str, Any]) -> None:
        self._each("open", iteration, config)

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        self._each("write", iteration, metrics)

    def picture(self, iteration: int, name: str, image: Image.Image) -> None:
        self._each("picture", iteration, name, image)

    def close(self) -> None:
        self._each("close")

    def _each(self, method: str, *args: Any) -> None:
        for writer in list(self._writers):
            try:
                getattr(writer, method)(*args)
            except Exception as error:  # disk, network, or anything inside of another package
                name = type(writer).__name__
                logger.warning("%s failed and writes no more (%s: %s)", name, type(error).__name__, error)
                self._writers.remove(writer)


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
