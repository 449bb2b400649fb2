"""Figures of a moment in training: learning rates, gradient norms, memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from detrex.engine.sharding import total_norm
from detrex.runtime.distributed import all_gather_objects

if TYPE_CHECKING:
    from detrex.engine.trainer import Trainer

_MB = 2**20


def learning_rates(trainer: Trainer) -> dict[str, float]:
    """``lr/PART`` for each part of the model: its largest learning rate in the last step.

    A part is a direct child of the model, such as ``backbone``; parts that are not trained have no rate.
    """
    groups = trainer.optimizer.param_groups
    # Schedules are factors on all rates alike, and have moved on since the step.
    largest = max(group["initial_lr"] for group in groups) or 1.0
    rates = {
        id(parameter): trainer.lr * group["initial_lr"] / largest
        for group in groups
        for parameter in group["params"]
    }
    found: dict[str, float] = {}
    for part, parameters in _parts(trainer.module).items():
        if own := [rates[id(p)] for p in parameters if id(p) in rates]:
            found[f"lr/{part}"] = max(own)
    return found


def gradient_norms(norm_type: float) -> Callable[[Trainer], dict[str, float]]:
    """``grad_norm/PART`` for each part of the model: the norm of its gradient before clipping.

    There is none after a step that was left out.

    Args:
        norm_type: of the trainer's norm.
    """

    def figures(trainer: Trainer) -> dict[str, float]:
        parts = {
            part: gradients
            for part, parameters in _parts(trainer.module).items()
            if (gradients := [p.grad for p in parameters if p.grad is not None])
        }
        if not parts or not trainer.step_taken:
            return {}
        norms = torch.stack([total_norm(g, norm_type).float() for g in parts.values()])
        # Clipping has scaled all gradients by the same factor; the norm of the whole was taken before it.
        after = torch.linalg.vector_norm(norms, norm_type)
        norms = norms * torch.where(after > 0, trainer.grad_norm.float() / after, 1.0)
        return {f"grad_norm/{part}": norm for part, norm in zip(parts, norms.tolist(), strict=True)}

    return figures


def memory(trainer: Trainer) -> dict[str, float]:
    """Memory in MiB, the largest of all processes.

    ``max_memory_mb`` and ``reserved_memory_mb`` are the most that tensors took on a GPU and that PyTorch
    reserved there, since the start; ``process_memory_mb`` is what a process has in main memory (where the
    system says it), without those that load data.
    """
    own: dict[str, float] = {}
    if trainer.device.type == "cuda":
        own["max_memory_mb"] = torch.cuda.max_memory_allocated(trainer.device) / _MB
        own["reserved_memory_mb"] = torch.cuda.max_memory_reserved(trainer.device) / _MB
    if (resident := _resident_bytes()) is not None:
        own["process_memory_mb"] = resident / _MB
    everyone = all_gather_objects(own)
    return {name: max(one[name] for one in everyone) for name in own}


def _parts(model: nn.Module) -> dict[str, list[Tensor]]:
    """The parameters by the first part of their name."""
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        parts.setdefault(name.partition(".")[0], []).append(parameter)
    return parts


def _resident_bytes() -> int | None:
    if sys.platform != "linux":
        return None
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return None
