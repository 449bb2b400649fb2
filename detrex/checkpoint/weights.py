"""Weights as safetensors files, and what fits when they are put into a model."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from detrex.checkpoint.atomic import replaced_file

WEIGHTS_NAME = "model.safetensors"
_ALIASES = "aliases"
_SHOWN = 10

logger = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint that cannot be read or does not fit; the message names the file."""


def write_weights(path: str | Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, atomically.

    Args:
        path: the file.
        weights: tensors by name, on any device. A tensor that occurs under several names (tied weights)
            is stored once; its other names go into the metadata.
        metadata: further text, such as class names as JSON.
    """
    stored, aliases = _without_ties(weights)
    extra = {_ALIASES: json.dumps(aliases)} if aliases else {}
    with replaced_file(path) as temporary:
        # Not save_file: its files can be read by their owner alone.
        temporary.write_bytes(save(stored, metadata={"format": "pt", **metadata, **extra}))


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads weights on the CPU.

    Args:
        path: a safetensors file, a directory of a checkpoint, or a file by ``torch.save`` of a state dict
            (itself, or under the key ``model`` or ``state_dict``).

    Returns:
        Tensors by name, and the metadata of the file (empty for files by ``torch.save``).

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated, damaged or holds something else.
    """
    path = Path(path)
    if path.is_dir():
        path = path / WEIGHTS_NAME
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _state_dict_of(read_torch_file(path), path), {}


def read_torch_file(path: Path) -> dict:
    """A dict written by ``torch.save``, on the CPU; tensors and plain values only.

    Raises:
        CheckpointError: the file is truncated, damaged or holds other kinds of objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(_unreadable(path, error)) from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            # A copy, for the file is memory-mapped and may be replaced while its tensors are in use.
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_unreadable(path, error)) from error
    for alias, name in json.loads(metadata.pop(_ALIASES, "{}")).items():
        weights[alias] = weights[name]
    return weights, metadata


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    size = path.stat().st_size if path.exists() else 0
    return (
        f"{path} ({size} bytes) cannot be read; it is truncated, damaged or no checkpoint "
        f"({type(error).__name__}: {reason}). Copy or download it again, or use another checkpoint."
    )


def _state_dict_of(content: object, path: Path) -> dict[str, Tensor]:
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(
            f"{path} holds no dict of tensors, neither itself nor under 'model' or 'state_dict'"
        )
    return content


def _without_ties(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What to store on the CPU, each storage once, and the other names of tied tensors."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple, str] = {}
    for name, tensor in weights.items():
        memory = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
        identity = (*memory, tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and identity in first:
            aliases[name] = first[identity]
            continue
        first[identity] = name
        # clone: safetensors refuses views that share memory, such as parts of one flat buffer.
        stored[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return stored, aliases


@dataclass
class LoadReport:
    """What did not fit when weights were put into a model.

    Attributes:
        mismatched: name to (shape in the file, shape in the model); these kept their initial values.
        missing: names that only the model has.
        unexpected: names that only the file has.
    """

    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.mismatched or self.missing or self.unexpected)

    def lines(self) -> list[str]:
        """One line for every parameter of another shape; long lists of names are shortened."""
        lines = [
            f"{name}: {_shape(file)} in the file, {_shape(model)} in the model"
            for name, (file, model) in self.mismatched.items()
        ]
        if self.missing:
            lines.append(f"not in the file: {_shortened(self.missing)}")
        if self.unexpected:
            lines.append(f"not in the model: {_shortened(self.unexpected)}")
        return lines


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, strict: bool, source: str | Path
) -> LoadReport:
    """Puts weights into a model.

    Args:
        model: the model, unwrapped.
        weights: tensors by name.
        strict: raise if anything differs. Otherwise parameters of another shape (as after a change of the
            class count) and those the file lacks keep their initial values and are named in the log.
        source: the file, for messages.

    Raises:
        CheckpointError: something differs in a strict load, or no parameter fits at all.
    """
    own = model.state_dict()
    report = LoadReport(
        mismatched={
            name: (tuple(weights[name].shape), tuple(value.shape))
            for name, value in own.items()
            if name in weights and weights[name].shape != value.shape
        },
        missing=[name for name in own if name not in weights],
        unexpected=[name for name in weights if name not in own],
    )
    fitting = {k: v for k, v in weights.items() if k in own and k not in report.mismatched}
    if strict and report:
        details = "\n  ".join(report.lines())
        raise CheckpointError(
            f"{source} does not fit the model; was it made with another config or class count?\n  {details}"
        )
    if not fitting:
        raise CheckpointError(f"{source}: none of its {len(weights)} tensors fits a parameter of the model")
    model.load_state_dict(fitting, strict=False)
    _log(report, len(fitting), source)
    return report


def _log(report: LoadReport, loaded: int, source: str | Path) -> None:
    logger.info("loaded %d tensors from %s", loaded, source)
    if report.mismatched:
        logger.warning(
            "%d tensors of %s have another shape (another class count?); these keep their initial values:",
            len(report.mismatched),
            source,
        )
    for line in report.lines():
        logger.warning("  %s", line)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} tensors: {', '.join(names[:_SHOWN])}{more}"
