"""What is saved when a loss or gradient is not finite, so that the cause can be found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from detrex.structures import Sample
from detrex.utils.distributed import is_main_process, rank

if TYPE_CHECKING:
    from detrex.engine.trainer import Trainer


class NonFiniteLossError(Exception):
    """A loss or gradient became infinite or not a number; the message says where to look."""


def save_nonfinite_report(directory: Path, trainer: Trainer, samples: Sequence[Sample]) -> Path:
    """Writes two files for this process: a summary to read (``.json``) and what it takes to repeat the step.

    The second (``.pt``, for ``torch.load``) has ``samples`` (targets as dicts of tensors) and ``losses``, and
    that of the main process also ``model`` (the weights before the step, for the step was not taken),
    ``optimizer`` and ``scheduler``, which are the same on all.

    Args:
        directory: made if need be.
        trainer: in the middle of the step that failed.
        samples: the batch of this process.

    Returns:
        The path of the summary.
    """
    directory.mkdir(parents=True, exist_ok=True)
    iteration = trainer.iteration + 1
    path = directory / f"iteration_{iteration:07d}_process_{rank()}.json"
    losses = {name: float(value) for name, value in trainer.losses.items()}
    summary = {
        "iteration": iteration,
        "losses": {name: value if math.isfinite(value) else str(value) for name, value in losses.items()},
        "images": [
            {"image_id": sample.get("image_id"), "file_name": sample.get("file_name")} for sample in samples
        ],
        "parameters_not_finite": _not_finite(trainer.module, gradients=False),
        "gradients_not_finite": _not_finite(trainer.module, gradients=True),
    }
    path.write_text(json.dumps(summary, indent=2, default=str) + "\n", encoding="utf-8")
    content = {"iteration": iteration, "samples": samples, "losses": losses}
    if is_main_process():
        for name in ("optimizer", "scheduler"):
            content[name] = getattr(trainer, name).state_dict()
        content["model"] = trainer.module.state_dict()
    torch.save(_plain(content), path.with_suffix(".pt"))
    return path


def _not_finite(model: nn.Module, gradients: bool) -> list[str]:
    tensors = ((name, p.grad if gradients else p) for name, p in model.named_parameters())
    return [name for name, tensor in tensors if tensor is not None and not tensor.isfinite().all()]


def _plain(value: Any) -> Any:
    """Tensors on the CPU and plain containers, which ``torch.load(weights_only=True)`` accepts."""
    if isinstance(value, Tensor):
        return value.detach().as_subclass(Tensor).cpu()
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
