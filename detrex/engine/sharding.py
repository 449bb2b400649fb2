"""Models whose weights, gradients and optimizer state are split over the processes (FSDP2).

Each tensor is split along its first dimension, and put together where it is used: weights of a sharded module
from its forward to its backward pass, all of them for evaluation, tensors one by one for a checkpoint, which
is the same as that of a run without.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from detrex.runtime.distributed import is_main_process, world_size

logger = logging.getLogger(__name__)


def shard(model: nn.Module, modules: Sequence[str]) -> None:
    """Splits the weights of ``model``, which stays the same object, over the processes.

    Args:
        model: on its device; the weights of the first process count. Optimizers are to be made afterwards.
        modules: patterns for names of modules whose weights are put together apart from the others; these
            must be called as modules, not part by part. All other weights are one more such group.
    """
    device = next(model.parameters()).device
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), 0)
    mesh = init_device_mesh(device.type, (world_size(),))
    chosen = [m for name, m in model.named_modules() if any(fnmatchcase(name, p) for p in modules)]
    for module in (*reversed(chosen), model):  # parts before the whole
        fully_shard(module, mesh=mesh, reshard_after_forward=False)
    logger.info("weights are split over %d processes, in %d groups", world_size(), len(chosen) + 1)


def put_together(model: nn.Module) -> None:
    """Lets every process use all weights, with no other one taking part, until the next backward pass.

    To be called on all processes. A model that is not sharded is so anyway.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.unshard()


def whole(state: Any) -> Any:
    """A state dict with whole tensors in the place of split ones; to be called on all processes.

    These are on the CPU, and empty on all processes but the main one.
    """
    if isinstance(state, DTensor):
        tensor = state.detach().full_tensor()
        return tensor.cpu() if is_main_process() else tensor.new_empty(0, device="cpu")
    if isinstance(state, dict):
        return type(state)((key, whole(value)) for key, value in state.items())
    if isinstance(state, list):
        return [whole(value) for value in state]
    return state


def own_part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor that may be split."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def total_norm(tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    """The norm of all tensors as one, which may be split; a scalar, to be called on all processes."""
    norm = get_total_norm(tensors, norm_type)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Loads a state dict of whole tensors into an optimizer whose parameters may be split."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    by_parameter = {
        index: {name: _split_like(parameters[index], value) for name, value in values.items()}
        for index, values in state["state"].items()
        if index < len(parameters)
    }
    optimizer.load_state_dict({**state, "state": by_parameter})


def _split_like(parameter: Tensor, value: Any) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)
