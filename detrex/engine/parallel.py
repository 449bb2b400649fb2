"""Models in several processes, with whole or split weights, and compiled parts of them.

Split weights (FSDP2): weights, gradients and optimizer state are split along the first dimension of each
tensor and put together where they are used: weights of a split module from its forward to its backward pass,
all of them for evaluation, tensors one by one for a checkpoint, which is the same as that of a run without.
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
        find_unused_parameters: look in every step for parameters without gradient. A model in which some take
            no part in some steps needs it; it costs time.
        static_graph: promise that the same parameters take part in every step, the same number of times,
            which lets PyTorch overlap more of the communication. (Parameters that never do are fine.)
        sync_batch_norm: batch norms that are trained take their statistics over all processes.
        fsdp: split the weights over the processes, in the model itself; see :func:`shard`.
            The first two switches do not matter then.
        fsdp_modules: patterns for names of modules, see there.
        accumulation: micro-batches per step.
        amp: ``train.amp``.
        averaged: whether there is a moving average of the weights.

    Raises:
        ConfigError: the switches do not go together, or with this device or model.
    """
    if static_graph and accumulation > 1:
        # PyTorch learns the graph in the first backward pass, which has to exchange gradients for that.
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
        # Newer releases of PyTorch ask for another name, which older ones do not have.
        warnings.filterwarnings("ignore", ".*broadcast_buffers.*", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=find_unused_parameters,
            static_graph=static_graph,
        )


def synchronise_batch_norms(model: nn.Module, device: str) -> nn.Module:
    """The same model with other modules in the place of its batch norms, and the same parameters in them.

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
    """Gives every process all weights, so that it needs no other one until the next backward pass.

    To be called on all processes. Does nothing to a model whose weights are not split.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.unshard()


def whole(state: Any) -> Any:
    """A state dict with whole tensors in the place of split ones; to be called on all processes.

    These are on the CPU, and empty on all processes but the main one.
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
    """What this process has of a tensor that may be split."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def total_norm(tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    """The norm of all tensors as one, which may be split; a scalar, to be called on all processes."""
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
    """Has modules of ``model`` compiled at their first call; names of modules and weights stay as they are.

    Args:
        model: on its device.
        modules: patterns for names of modules, such as ``backbone`` or ``encoder.layers.*``. They must be
            called as modules, not part by part.
        backend: of :func:`torch.compile`.
        dynamic: whether one compilation is to serve all sizes of images; None: from the second size on.

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
