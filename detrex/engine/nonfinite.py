"""Skips steps whose loss or gradient is not finite, and saves what is needed to find the cause."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detrex.checkpoint import write_torch_file
from detrex.engine.hooks import Training
from detrex.engine.parallel import local_part, whole
from detrex.runtime.distributed import all_gather_objects, is_main_process, rank
from detrex.structures import Sample

_SHOWN_LOSSES = 4  # non-finite losses in a message; the report has all of them
_ADVICE = "Try a lower learning rate, a longer warm-up, train.amp=bf16 or off, or look at these images."

logger = logging.getLogger(__name__)


@dataclass
class MicroBatch:
    """The results of a forward pass that are kept until its step is decided.

    Attributes:
        samples: of this process.
        losses: by name, detached.
        finite: bool scalar on the model's device: whether the sum of losses is finite.
    """

    samples: list[Sample]
    losses: dict[str, Tensor]
    finite: Tensor


class KeptBuffers:
    """A copy of the buffers that forward passes change, such as statistics of batch norms.

    A non-finite batch spoils them even if its step is skipped.
    """

    def __init__(self, model: nn.Module):
        saved = model.state_dict(keep_vars=True)  # other buffers, such as masks and tables, do not change
        self._buffers = [buffer for name, buffer in model.named_buffers() if name in saved]
        self._kept = [buffer.clone() for buffer in self._buffers]

    def keep(self) -> None:
        """Copies the buffers as they are now."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)

    def restore(self) -> None:
        """Restores the buffers to their values at the last :meth:`keep`."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)


class NonFiniteLossError(FloatingPointError):
    """A loss or gradient became infinite or not a number; the message says where to look."""


class NonFiniteGuard:
    """Lets a run skip steps whose loss or gradient is not finite, but only so many in a row.

    Attributes:
        skipped: number of steps skipped in a row.
    """

    def __init__(self, directory: Path, limit: int):
        """
        Args:
            directory: for the report.
            limit: largest number of steps that may be skipped in a row.

        Raises:
            ValueError: the limit is negative.
        """
        if limit < 0:
            raise ValueError(f"train.max_skipped_steps must not be negative, but is {limit}")
        self.skipped = 0
        self._directory = directory
        self._limit = limit

    def skip(self, trainer: Training, what: str, micro_batches: Sequence[MicroBatch]) -> None:
        """Counts and logs a skipped step; call it on all processes.

        Args:
            trainer: in the middle of that step.
            what: ``loss`` or ``gradient``, whichever was not finite first.
            micro_batches: of this process.

        Raises:
            NonFiniteLossError: too many steps were skipped in a row.
        """
        self.skipped += 1
        guilty = [batch for batch in micro_batches if not batch.finite]
        samples = [sample for batch in guilty or micro_batches for sample in batch.samples]
        cause = _describe(trainer.losses, samples) if guilty or what == "gradient" else None
        found = "; ".join(filter(None, all_gather_objects(cause)))
        message = f"the {what} is not finite at iteration {trainer.iteration + 1}: {found}."
        if self.skipped > self._limit:
            raise NonFiniteLossError(f"{message} {self._report(trainer, samples)} {_ADVICE}")
        if is_main_process():
            count = f"{self.skipped} of at most {self._limit} in a row"
            logger.warning("%s The step is left out (%s).", message, count)

    def _report(self, trainer: Training, samples: Sequence[Sample]) -> str:
        try:
            path = save_nonfinite_report(self._directory, trainer, samples)
        except OSError as error:  # the reason why the run ends still has to be reported
            return f"A report could not be written: {error}."
        return f"Batch and weights are in {path.with_suffix('.pt')}, a summary in {path}."


def save_nonfinite_report(directory: Path, trainer: Training, samples: Sequence[Sample]) -> Path:
    """Writes two files for this process: a summary (``.json``), and what is needed to repeat the step.

    The second (``.pt``, for ``torch.load``) has ``samples`` (targets as dicts of tensors) and ``losses``;
    that of the main process also has ``model`` (the weights before the step, because the step was not taken),
    ``optimizer`` and ``scheduler``, which are equal on all processes.

    Args:
        directory: created if need be.
        trainer: in the middle of the step that failed.
        samples: the samples of this process; of several micro-batches, those that caused the failure.

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
    optimizer, weights = whole(trainer.optimizer.state_dict()), trainer.weights()
    if is_main_process():
        content |= {"optimizer": optimizer, "scheduler": trainer.scheduler.state_dict(), "model": weights}
    write_torch_file(path.with_suffix(".pt"), _plain(content))
    return path


def _describe(losses: Mapping[str, Tensor], samples: Sequence[Sample]) -> str:
    values = {name: float(value) for name, value in losses.items()}
    worst = sorted(values, key=lambda name: (math.isfinite(values[name]), -abs(values[name])))
    parts = ", ".join(f"{name} {values[name]:g}" for name in worst[:_SHOWN_LOSSES])
    more = f" and {len(worst) - _SHOWN_LOSSES} more" if len(worst) > _SHOWN_LOSSES else ""
    images = dict.fromkeys(str(s.get("file_name") or s.get("image_id", "?")) for s in samples)
    return f"{parts}{more} (images {', '.join(images)})"


def _not_finite(model: nn.Module, gradients: bool) -> list[str]:
    tensors = ((name, p.grad if gradients else p) for name, p in model.named_parameters())
    return [name for name, t in tensors if t is not None and not local_part(t).isfinite().all()]


def _plain(value: Any) -> Any:
    """The value as tensors on the CPU and plain containers, for ``torch.load(weights_only=True)``."""
    if isinstance(value, Tensor):
        return value.detach().as_subclass(Tensor).cpu()
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
