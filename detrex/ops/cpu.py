"""Runs the compiled CPU kernel. Tensors are dense and were checked by ``detrex.ops.operator``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from detrex.ops.library import KernelError, Reference, Sizes, cpu_library

_NAMES = {torch.float32: "float32", torch.float64: "float64"}


def forward(sizes: Sizes, shapes: Sequence[int], value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The output, (B, Q, M, D). Values in half precision are first converted to the dtype of sums.

    Raises:
        KernelError: if the kernel is not built.
    """
    output = locations.new_empty(sizes.batch, sizes.queries, sizes.heads, sizes.dim)
    _call("forward", sizes, shapes, [value.to(locations.dtype), locations, weights], [output])
    return output.to(value.dtype)


def attend(
    sizes: Sizes, shapes: Sequence[int], value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """The output, (B, Q, M, D) float32, from the offsets and logits of layers.

    Args:
        sizes, shapes, value: see :func:`forward`; the value is float32.
        reference: (B or 1, Q, L or 1, 2 or 4) float32, the last axis dense.
        offsets: (B, Q, M, L, P, 2) float32.
        logits: (B, Q, M, L, P) float32.

    Raises:
        KernelError: if the kernel is not built.
    """
    output = offsets.new_empty(sizes.batch, sizes.queries, sizes.heads, sizes.dim)
    images, _, levels, dims = reference.shape
    strides = (
        0 if images == 1 else reference.stride(0),
        reference.stride(1),
        0 if levels == 1 else reference.stride(2),
    )
    places = Reference(reference.data_ptr(), dims, *strides)
    _run(
        "attend_float32",
        sizes,
        shapes,
        [value.data_ptr(), ctypes.addressof(places), *_places(offsets, logits, output)],
    )
    return output


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
    grad_value = torch.zeros_like(value, dtype=sums)  # the kernel adds to it
    grads = [grad_value, torch.empty_like(locations), torch.empty_like(weights)]
    _call("backward", sizes, shapes, [value.to(sums), locations, weights, grad_output.to(sums)], grads)
    return grad_value.to(value.dtype), grads[1], grads[2]


def _call(
    direction: str, sizes: Sizes, shapes: Sequence[int], inputs: list[Tensor], outputs: list[Tensor]
) -> None:
    _run(f"{direction}_{_NAMES[inputs[0].dtype]}", sizes, shapes, _places(*inputs, *outputs))


def _places(*tensors: Tensor) -> list[int]:
    """Addresses of tensors in memory."""
    return [tensor.data_ptr() for tensor in tensors]


def _run(name: str, sizes: Sizes, shapes: Sequence[int], pointers: list[int]) -> None:
    library = cpu_library()
    if isinstance(library, KernelError):
        raise KernelError(str(library))
    flat_shapes = (ctypes.c_int64 * len(shapes))(*shapes)
    threads = torch.get_num_threads()
    library.function(name)(ctypes.byref(sizes), flat_shapes, *pointers, threads, library.baseline)
