"""Loads weights of all known formats, from files, folders, addresses and the model zoo."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detrex.checkpoint.checkpointer import CHECKPOINTS, FINAL_WEIGHTS, STATE_NAME, Checkpointer
from detrex.checkpoint.download import fetch, is_url
from detrex.checkpoint.fitting import LoadReport, load_weights
from detrex.checkpoint.formats import convert
from detrex.checkpoint.pickles import read_pickle
from detrex.checkpoint.published import Kind, is_published, kind_of
from detrex.checkpoint.settings import fitting_rows, settings_of_file
from detrex.checkpoint.weights import (
    WEIGHTS_NAME,
    CheckpointError,
    read_torch_file,
    read_weights,
    state_dict_of,
)
from detrex.checkpoint.zoo import entry_of_file, zoo_entries, zoo_entry
from detrex.structures import Categories

SCORE_THRESHOLDS = "score_thresholds"
PRECISION_THRESHOLDS = "precision_thresholds"
"""Key in the metadata of weights: JSON of the thresholds in [0, 1] with the best F1, by category id."""

logger = logging.getLogger(__name__)


@dataclass
class WeightsFile:
    """The unchanged content of a file of weights.

    Attributes:
        path: on this machine.
        tensors: on the CPU, under the file's own names.
        metadata: text beside the weights; empty if the format has none.
        categories: the classes that the weights were trained on, from the metadata or, for a published file,
            from the model zoo; None if unknown.
        state: the training state of a checkpoint folder, if it was asked for.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    categories: Categories | None
    state: dict[str, Any] | None = None


def load_pretrained(
    model: nn.Module,
    source: str | Path | WeightsFile,
    *,
    strict: bool = False,
    categories: Categories | None = None,
    allow_pickle: bool = False,
    with_state: bool = False,
) -> LoadReport:
    """Recognises the format of weights and loads them into a model.

    Known are this toolbox's own files, the published Mask DINO, detectors of the DETR family, and backbones
    of timm, torchvision, detectron2 and Swin's authors; see ``docs/checkpoints.md``. A table in the log shows
    what was loaded.

    Args:
        model: the model, unwrapped.
        source: see :func:`read_source`.
        strict: raise if a parameter is missing, unused or of a different shape. Otherwise, parameters that do
            not fit keep their initial values, except that a classifier for other classes takes the rows of
            classes whose names the file and ``categories`` share.
        categories: the model's classes.
        allow_pickle, with_state: see :func:`read_source`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged or of an unknown kind, does not fit in a strict load, or has no
            entry that fits.

    Returns:
        A report of what was loaded, re-initialised, missing and unused.
    """
    file = source if isinstance(source, WeightsFile) else read_source(source, allow_pickle, with_state)
    try:
        converted = convert(file.tensors, model)
    except Exception as error:  # entries of any shapes can have the names of a known format
        raise CheckpointError(
            f"{file.path} has entries with the names of a known format, but not of its shapes ({error})"
        ) from error
    try:
        report = load_weights(
            model, converted.tensors, strict=strict, source=file.path, classes=(file.categories, categories)
        )
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_hint(file.tensors)}") from error
    report.format, report.state = converted.format, file.state
    report.unused += converted.unused
    report.notes += converted.notes
    level = logging.INFO if report.complete and not report.notes else logging.WARNING
    logger.log(level, "%s, taken as %s:\n%s", file.path, report.format, report.table())
    return report


def read_source(source: str | Path, allow_pickle: bool = False, with_state: bool = False) -> WeightsFile:
    """Reads weights on the CPU, from a file, a folder, the network or the model zoo.

    Args:
        source: a file (safetensors, ``torch.save`` or, with ``allow_pickle``, ``.pkl``); the folder of a
            checkpoint, or of a run, for its final weights or else its newest checkpoint; an ``https://`` URL,
            which is downloaded once into a cache; or a name in the model zoo, whose URL is downloaded.
        allow_pickle: read detectron2's old ``.pkl`` files. They are decoded by a reader that knows only
            numbers and text, so that nothing in them is executed.
        with_state: also read the training state, if the source is a checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, of an unknown kind, or cannot be downloaded, or the zoo has no
            such name.
    """
    path = _local(source)
    metadata: dict[str, str] = {}
    if path.suffix == ".pkl":
        if not allow_pickle:
            raise CheckpointError(
                f"{path} is a pickle, which is not read unasked: give allow_pickle=True (in a config "
                "train.allow_pickle=true, in tools --allow-pickle). The reader executes nothing in it."
            )
        tensors = state_dict_of(read_pickle(path), path)
    else:
        tensors, metadata = read_weights(path)
    state_file = path / STATE_NAME
    state = read_torch_file(state_file) if with_state and state_file.is_file() else None
    return WeightsFile(path, tensors, metadata, _categories(path, metadata), state)


def _hint(tensors: dict[str, Tensor]) -> str:
    """For a published file that does not fit, a text that names its model and the configs that it fits."""
    if not is_published(tensors):
        return ""
    kind = kind_of(tensors)
    if kind is not Kind.MASK_DINO:
        return f"\n  The file is of a published {kind.value}."
    settings = settings_of_file(tensors)
    names = fitting_rows(settings)
    fits = f"; in the model zoo this is {' or '.join(names)}" if names else ""
    return f"\n  The file is of a published Mask DINO with {settings}{fits}."


def _local(source: str | Path) -> Path:
    """The path of the file on this machine, after a download if ``source`` asks for one."""
    path = Path(source)
    if path.is_dir():
        return _weights_in(path)
    if path.exists():
        return path
    text = str(source)
    if is_url(text):
        return fetch(text)
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"no checkpoint at {path}")
    entry = zoo_entry(text)
    if entry.url is None:
        published = [name for name, other in zoo_entries().items() if other.url is not None]
        raise CheckpointError(
            f"the model zoo has no address of weights for '{text}'; it has those of {', '.join(published)}"
        )
    return fetch(entry.url, entry.sha256)


def _weights_in(folder: Path) -> Path:
    """The checkpoint folder itself, or the weights to use in the folder of a run."""
    if (folder / WEIGHTS_NAME).is_file():
        return folder
    if (folder / FINAL_WEIGHTS).is_file():
        return folder / FINAL_WEIGHTS
    newest = Checkpointer(folder / CHECKPOINTS).resume()
    if newest is None:
        raise FileNotFoundError(
            f"{folder} is no folder of a checkpoint or run: neither {WEIGHTS_NAME} nor {FINAL_WEIGHTS} nor "
            f"{CHECKPOINTS}/ is in it"
        )
    return newest.path


def _categories(path: Path, metadata: dict[str, str]) -> Categories | None:
    if "categories" in metadata:
        try:
            return Categories.from_dict(json.loads(metadata["categories"]))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} does not name its classes in a readable way: {error}") from error
    entry = entry_of_file(path)
    return None if entry is None else entry.categories()
