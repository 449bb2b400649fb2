"""What is saved when a loss or gradient is not finite, so that the cause can be found."""

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

_SHOWN_LOSSES = 4  # of those that are not finite; the report has all
_ADVICE = "Try a lower learning rate, a longer warm-up, train.amp=bf16 or off, or look at these images."

logger = logging.getLogger(__name__)


@dataclass
class MicroBatch:
    """What is kept of a forward pass until its step is decided.

    Attributes:
        samples: of this process.
        losses: by name, detached.
        finite: bool scalar on the model's device: whether their sum is.
    """

    samples: list[Sample]
    losses: dict[str, Tensor]
    finite: Tensor


class KeptBuffers:
    """A copy of what forward passes leave in a model, such as the statistics of batch norms.

    A batch that is not finite spoils them even if its step is left out.
    """

    def __init__(self, model: nn.Module):
        saved = model.state_dict(keep_vars=True)  # others, such as masks and tables, do not change
        self._buffers = [buffer for name, buffer in model.named_buffers() if name in saved]
        self._kept = [buffer.clone() for buffer in self._buffers]

    def keep(self) -> None:
        """Copies the buffers as they are now."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)

    def restore(self) -> None:
        """Puts them back as they were at the last :meth:`keep`."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)


class NonFiniteLossError(FloatingPointError):
    """A loss or gradient became infinite or not a number; the message says where to look."""


class NonFiniteGuard:
    """Lets a run leave out steps whose loss or gradient is not finite, but not for ever.

    Attributes:
        skipped: steps left out in a row.
    """

    def __init__(self, directory: Path, limit: int):
        """
        Args:
            directory: for the report at the end.
            limit: how many steps in a row may be left out.

        Raises:
            ValueError: the limit is negative.
        """
        if limit < 0:
            raise ValueError(f"train.max_skipped_steps must not be negative, but is {limit}")
        self.skipped = 0
        self._directory = directory
        self._limit = limit

    def skip(self, trainer: Training, what: str, micro_batches: Sequence[MicroBatch]) -> None:
        """Counts and logs a step that is left out; to be called on all processes.

        Args:
            trainer: in the middle of that step.
            what: ``loss`` or ``gradient``, whichever was not finite first.
            micro_batches: of this process.

        Raises:
            NonFiniteLossError: it was one too many.
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
        except OSError as error:  # why the run ends is still to be told
            return f"A report could not be written: {error}."
        return f"Batch and weights are in {path.with_suffix('.pt')}, a summary in {path}."


def save_nonfinite_report(directory: Path, trainer: Training, samples: Sequence[Sample]) -> Path:
    """Writes two files for this process: a summary to read (``.json``) and what it takes to repeat the step.

    The second (``.pt``, for ``torch.load``) has ``samples`` (targets as dicts of tensors) and ``losses``, and
    that of the main process also ``model`` (the weights before the step, for the step was not taken),
    ``optimizer`` and ``scheduler``, which are the same on all.

    Args:
        directory: made if need be.
        trainer: in the middle of the step that failed.
        samples: what this process was given; of several micro-batches those that are to blame.

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
