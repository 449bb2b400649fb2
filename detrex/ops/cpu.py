"""The CPU kernel as PyTorch operators: ``torch.ops.detrex.msda`` and ``torch.ops.detrex.msda_backward``.

Both take float32 or float64 and the level shapes flattened to (height, width, height, width, ...).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detrex.ops.library import LibraryError, Sizes, cpu_library

DTYPES = {torch.float32: "float32", torch.float64: "float64"}


@torch.library.custom_op("detrex::msda", mutates_args=(), device_types="cpu")
def msda(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """Forward: (B, S, M, D), 2L numbers, (B, Q, M, L, P, 2) and (B, Q, M, L, P) to (B, Q, M * D).

    Raises:
        ValueError: if shapes or dtypes do not fit together.
        LibraryError: if the kernel is not built.
    """
    sizes = _sizes(value, shapes, locations, weights)
    output = value.new_empty(sizes.batch, sizes.queries, sizes.heads * sizes.dim)
    _call("forward", sizes, shapes, [t.contiguous() for t in (value, locations, weights)], [output])
    return output


@torch.library.custom_op("detrex::msda_backward", mutates_args=(), device_types="cpu")
def msda_backward(
    value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor, grad_output: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights, given that of the output (B, Q, M * D).

    Raises:
        ValueError: if shapes or dtypes do not fit together.
        LibraryError: if the kernel is not built.
    """
    sizes = _sizes(value, shapes, locations, weights)
    expected = (sizes.batch, sizes.queries, sizes.heads * sizes.dim)
    if grad_output.shape != expected or grad_output.dtype != value.dtype:
        raise ValueError(
            f"the output's gradient must be {value.dtype} of shape {expected}, "
            f"not {grad_output.dtype} of shape {tuple(grad_output.shape)}"
        )
    inputs = [t.contiguous() for t in (value, locations, weights, grad_output)]
    grads = [
        value.new_zeros(value.shape),  # the kernel adds to this one
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    ]
    _call("backward", sizes, shapes, inputs, grads)
    return grads[0], grads[1], grads[2]


@msda.register_fake
def _fake_msda(value: Tensor, _shapes: Sequence[int], locations: Tensor, _weights: Tensor) -> Tensor:
    batch, _, heads, dim = value.shape
    return value.new_empty(batch, locations.shape[1], heads * dim)


@msda_backward.register_fake
def _fake_msda_backward(
    value: Tensor, _shapes: Sequence[int], locations: Tensor, weights: Tensor, _grad_output: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], **_: Any) -> None:
    value, shapes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)
    ctx.shapes = shapes


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    value, locations, weights = ctx.saved_tensors
    grads = msda_backward(value, ctx.shapes, locations, weights, grad_output)
    return grads[0], None, grads[1], grads[2]


def _second_backward(*_: Any) -> tuple[Tensor, ...]:
    raise RuntimeError(
        "the kernel of deformable attention has no second derivatives; compute the output under "
        'detrex.ops.force_implementation("reference"), which has'
    )


msda.register_autograd(_backward, setup_context=_save)
msda_backward.register_autograd(_second_backward)


def _sizes(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Sizes:
    """Checks everything that the kernel takes for granted: it reads memory by these numbers."""
    if value.dim() != 4 or locations.dim() != 6:
        raise ValueError(
            "value must be (B, S, M, D) and locations (B, Q, M, L, P, 2), "
            f"not {tuple(value.shape)} and {tuple(locations.shape)}"
        )
    if value.dtype not in DTYPES or not value.dtype == locations.dtype == weights.dtype:
        raise ValueError(
            "value, locations and weights must all be float32 or all float64, "
            f"not {value.dtype}, {locations.dtype} and {weights.dtype}"
        )
    batch, tokens, heads, dim = value.shape
    queries, levels, points = locations.shape[1], len(shapes) // 2, locations.shape[4]
    cells = sum(h * w for h, w in zip(shapes[::2], shapes[1::2], strict=True))
    if min(shapes, default=0) < 0 or cells != tokens:
        raise ValueError(
            f"levels of (height, width, ...) {list(shapes)} have {cells} cells; the value has {tokens}"
        )
    if locations.shape != (batch, queries, heads, levels, points, 2):
        raise ValueError(
            f"with value {tuple(value.shape)} and {levels} levels, locations must be "
            f"{(batch, 'Q', heads, levels, 'P', 2)}, not {tuple(locations.shape)}"
        )
    if weights.shape != locations.shape[:-1]:
        raise ValueError(f"weights must be {tuple(locations.shape[:-1])}, not {tuple(weights.shape)}")
    return Sizes(batch, tokens, heads, dim, queries, levels, points)


def _call(
    direction: str, sizes: Sizes, shapes: Sequence[int], inputs: list[Tensor], outputs: list[Tensor]
) -> None:
    library = cpu_library()
    if isinstance(library, LibraryError):
        raise LibraryError(str(library))
    function = library.function(f"{direction}_{DTYPES[inputs[0].dtype]}")
    flat_shapes = (ctypes.c_int64 * len(shapes))(*shapes)
    pointers = [t.data_ptr() for t in (*inputs, *outputs)]
    function(ctypes.byref(sizes), flat_shapes, *pointers, torch.get_num_threads(), library.baseline)
