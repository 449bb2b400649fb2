"""Runs the compiled CPU kernel. Tensors come dense and checked, from ``detrex.ops.operator``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from detrex.ops.library import KernelError, Sizes, cpu_library

_NAMES = {torch.float32: "float32", torch.float64: "float64"}


def forward(sizes: Sizes, shapes: Sequence[int], value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The output, (B, Q, M, D). Values of half precision become those of sums first.

    Raises:
        KernelError: if the kernel is not built.
    """
    output = locations.new_empty(sizes.batch, sizes.queries, sizes.heads, sizes.dim)
    _call("forward", sizes, shapes, [value.to(locations.dtype), locations, weights], [output])
    return output.to(value.dtype)


def backward(
    sizes: Sizes,
    shapes: Sequence[int],
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights.

    Raises:
        KernelError: if the kernel is not built.
    """
    sums = locations.dtype
    grad_value = torch.zeros_like(value, dtype=sums)  # the kernel adds to this one
    grads = [grad_value, torch.empty_like(locations), torch.empty_like(weights)]
    _call("backward", sizes, shapes, [value.to(sums), locations, weights, grad_output.to(sums)], grads)
    return grad_value.to(value.dtype), grads[1], grads[2]


def _call(
    direction: str, sizes: Sizes, shapes: Sequence[int], inputs: list[Tensor], outputs: list[Tensor]
) -> None:
    library = cpu_library()
    if isinstance(library, KernelError):
        raise KernelError(str(library))
    function = library.function(f"{direction}_{_NAMES[inputs[0].dtype]}")
    flat_shapes = (ctypes.c_int64 * len(shapes))(*shapes)
    pointers = [t.data_ptr() for t in (*inputs, *outputs)]
    function(ctypes.byref(sizes), flat_shapes, *pointers, torch.get_num_threads(), library.baseline)
