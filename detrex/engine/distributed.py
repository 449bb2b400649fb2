"""Making a model train in several processes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detrex.config import ConfigError
from detrex.engine.sharding import shard
from detrex.runtime.device import is_scaled
from detrex.runtime.distributed import world_size

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
        fsdp: split the weights over the processes, in the model itself; see :mod:`detrex.engine.sharding`.
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
