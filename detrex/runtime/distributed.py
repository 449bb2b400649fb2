"""The collective operations that this package uses; each also works in a run of one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

_alone = ContextVar("_alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Inside the block, this process acts as in a run of one: it waits for no other."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def is_distributed() -> bool:
    """Whether a process group is running."""
    return dist.is_available() and dist.is_initialized() and not _alone.get()


def rank() -> int:
    """This process's number, 0 in a run of one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if is_distributed() else 1


def is_main_process() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


def barrier() -> None:
    """Waits for all processes."""
    if is_distributed():
        dist.barrier()


def all_gather_objects(item: Any) -> list[Any]:
    """The ``item`` of every process, in the order of ranks. Items are pickled, so they should be small."""
    if not is_distributed():
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


def mean_over_processes(value: Tensor) -> Tensor:
    """``value`` averaged over all processes, without gradient."""
    value = value.detach().clone()
    if is_distributed():
        dist.all_reduce(value)
        value = value / world_size()
    return value


def share_buffers(module: nn.Module) -> None:
    """Gives every process the main one's buffers, such as running statistics of batch norms."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
