"""Limits the memory for building a model that someone else described, in proportion to its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

# Values that building may make besides parameters: buffers, tables, values for initialisation.
_TIMES, _VALUES = 2, 50_000_000
_OPERATIONS_PER_TENSOR, _OPERATIONS = 30, 20_000


class SizeLimitError(Exception):
    """A model is far larger than the weights that came with its config."""


class SizeLimit(TorchDispatchMode):
    """A context that limits the tensors made inside it; a tensor that is too large is never made.

    Args:
        tensors: the weights.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        held = sum(tensor.numel() for tensor in tensors.values())
        self._values = self._left = _TIMES * held + _VALUES
        self._operations = _OPERATIONS_PER_TENSOR * len(tensors) + _OPERATIONS
        self._held = held

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._operations -= 1
        if not func._schema.is_mutable and not func.is_view:
            self._left -= _values_made(func, args, kwargs)
        if self._left < 0 or self._operations < 0:
            raise SizeLimitError(
                "the config describes a model that is far larger than its weights, which hold "
                f"{self._held:,} values: it is of another model, or damaged"
            )
        return func(*args, **kwargs)


def _values_made(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Number of values in the result of an operation, determined without computing it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_meta = all(t.is_meta for t in tensors) if tensors else str(kwargs.get("device")) == "meta"
    if on_meta:
        return 0
    try:
        shapes, options = tree_map_only(Tensor, _without_values, (args, kwargs))
        result = func(*shapes, **(options if tensors else {**options, "device": "meta"}))
    except Exception:  # the size depends on values, or the operation has no rule for sizes
        return sum(tensor.numel() for tensor in tensors)
    return sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


def _without_values(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
