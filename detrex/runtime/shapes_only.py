"""Modules without values: what their shapes tell takes no memory and little time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# With which modules and timm's models fill their parameters.
_FILLING = {"add_", "clamp_", "erfinv_", "fill_", "mul_", "normal_", "uniform_", "zero_"}


class _WithoutFilling(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],  # noqa: ARG002
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FILLING:
            # Functions of torch.nn.init hand their tensor over by name.
            filled = args[0] if args else kwargs.get("tensor")
            if isinstance(filled, Tensor) and filled.is_meta:
                return filled
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """A context in which modules are made on the meta device, and nothing is computed for their parameters.

    On the meta device alone, PyTorch would still run the initialisation, slowly: its operators for meta
    tensors are Python, which takes more than half of the time to make a Swin-L.
    """
    with torch.device("meta"), _WithoutFilling():
        yield
