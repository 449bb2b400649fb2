"""Models in several processes, with whole or split weights, and compiled modules.

With split weights (FSDP2), weights, gradients and optimizer state are split along the first dimension of each
tensor and gathered where they are used: the weights of a split module from its forward to its backward pass,
all weights for evaluation, and single tensors for a checkpoint, which equals that of a run without splitting.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from detrex.config import ConfigError
from detrex.runtime.device import is_scaled
from detrex.runtime.distributed import is_main_process, world_size

logger = logging.getLogger(__name__)


def distribute(
    model: nn.Module,
    find_unused_parameters: bool = False,
    static_graph: bool = False,
    sync_batch_norm: bool = False,
    fsdp: bool = False,
    fsdp_modules: Sequence[str] = (),
    accumulation: int = 1,
    amp: str = "off",
    averaged: bool = False,
) -> nn.Module:
    """The model with its gradients averaged over all processes; in a run of one, the model itself.

    Args:
        model: on its device. The weights of the first process count.
        find_unused_parameters: look for parameters without gradient in every step. Models need this, at some
            cost of time, if parameters are unused in some steps.
        static_graph: promise that every step uses the same parameters the same number of times, which lets
            PyTorch overlap more of the communication. (Parameters that are never used are allowed.)
        sync_batch_norm: trained batch norms compute their statistics over all processes.
        fsdp: split the weights over the processes, in place; see :func:`shard`. The first two switches then
            do not matter.
        fsdp_modules: patterns for names of modules, see :func:`shard`.
        accumulation: micro-batches per step.
        amp: ``train.amp``.
        averaged: whether there is a moving average of the weights.

    Raises:
        ConfigError: the switches do not fit each other, the device or the model.
    """
    if static_graph and accumulation > 1:
        # PyTorch learns the graph in the first backward pass, which therefore has to exchange gradients.
        raise ConfigError(
            "train.distributed.static_graph does not go together with "
            f"train.accumulation={accumulation}: leave one of them out"
        )
    if world_size() == 1:
        return model
    device = next(model.parameters()).device
    if sync_batch_norm:
        model = synchronise_batch_norms(model, device.type)
    if fsdp:
        if is_scaled(amp) or averaged:
            raise ConfigError(
                "train.distributed.fsdp goes neither with train.amp=fp16 nor with train.ema.enabled"
            )
        shard(model, fsdp_modules)
        return model
    with warnings.catch_warnings():
        # Newer releases of PyTorch want another name, which older ones do not have.
        warnings.filterwarnings("ignore", ".*broadcast_buffers.*", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=find_unused_parameters,
            static_graph=static_graph,
        )


def synchronise_batch_norms(model: nn.Module, device: str) -> nn.Module:
    """Replaces the batch norms of a model by synchronised ones with the same parameters.

    Raises:
        ConfigError: ``device`` is ``cpu``, or there is no batch norm to replace.
    """
    if device == "cpu":
        raise ConfigError(
            "train.distributed.sync_batch_norm needs GPUs: PyTorch has no such norm for CPUs. Set it to "
            "false to train with statistics of each process by itself"
        )
    found = sum(isinstance(module, _BatchNorm) for module in model.modules())
    if not found:
        raise ConfigError(
            "train.distributed.sync_batch_norm: the model has no batch norm that is trained; those of a "
            "backbone are where model.backbone.frozen_norm=false"
        )
    logger.info("%d batch norms take their statistics over all processes", found)
    return convert_sync_batchnorm(model)


def shard(model: nn.Module, modules: Sequence[str]) -> None:
    """Splits the weights of ``model`` over the processes, in place.

    Args:
        model: on its device; the weights of the first process count. Create optimizers afterwards.
        modules: patterns for names of modules whose weights are gathered separately; these modules must be
            called as a whole, not part by part. All other weights are gathered together.
    """
    device = next(model.parameters()).device
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), 0)
    mesh = init_device_mesh(device.type, (world_size(),))
    chosen = [m for name, m in model.named_modules() if any(fnmatchcase(name, p) for p in modules)]
    for module in (*reversed(chosen), model):  # inner modules before outer ones
        fully_shard(module, mesh=mesh, reshard_after_forward=False)
    logger.info("weights are split over %d processes, in %d groups", world_size(), len(chosen) + 1)


def put_together(model: nn.Module) -> None:
    """Gives every process all weights, so that it does not need other processes until the next backward pass.

    Call it on all processes. It does nothing to a model whose weights are not split.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.unshard()


def whole(state: Any) -> Any:
    """A state dict with whole tensors in place of split ones; call it on all processes.

    The whole tensors are on the CPU, and empty on all processes except the main one.
    """
    if isinstance(state, DTensor):
        tensor: Tensor = cast(DTensor, state.detach()).full_tensor()
        return tensor.cpu() if is_main_process() else tensor.new_empty(0, device="cpu")
    if isinstance(state, dict):
        return type(state)((key, whole(value)) for key, value in state.items())
    if isinstance(state, list):
        return [whole(value) for value in state]
    return state


def is_split(model: nn.Module) -> bool:
    """Whether the weights of ``model`` are split over the processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def local_part(tensor: Tensor) -> Tensor:
    """The part of a tensor, which may be split, on this process."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def total_norm(tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    """The joint norm, a scalar, of tensors that may be split; call it on all processes."""
    norm: Any = get_total_norm(tensors, norm_type)
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


def compile_modules(
    model: nn.Module, modules: Sequence[str], backend: str = "inductor", dynamic: bool | None = None
) -> None:
    """Makes modules of ``model`` compile at their first call; names of modules and weights do not change.

    Args:
        model: on its device.
        modules: patterns for names of modules, such as ``backbone`` or ``encoder.layers.*``. The modules must
            be called as a whole, not part by part.
        backend: of :func:`torch.compile`.
        dynamic: whether one compilation serves all sizes of images; None: from the second size on.

    Raises:
        ConfigError: a pattern fits no module, or the machine lacks the compiler that the backend calls.
    """
    names = [name for name, _ in model.named_modules() if name]
    for pattern in modules:
        chosen = [name for name in names if fnmatchcase(name, pattern)]
        if not chosen:
            children = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f"train.compile.modules: {pattern!r} is the name of no module; those of the model are "
                f"{children} and parts of these"
            )
        for name in chosen:
            model.get_submodule(name).compile(backend=backend, dynamic=dynamic)
        logger.info("torch.compile (%s): %s", backend, ", ".join(chosen))
    if modules and backend == "inductor" and next(model.parameters()).device.type == "cpu":
        compiler = os.environ.get("CXX", "g++")
        if not (shutil.which(compiler) or shutil.which("clang++")):
            raise ConfigError(
                f"train.compile on a CPU needs a C++ compiler, and there is no {compiler}: install one, or "
                "set train.compile.modules=[]"
            )
