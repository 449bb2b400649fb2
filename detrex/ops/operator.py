"""The kernels as PyTorch operators: ``torch.ops.detrex.msda`` and ``torch.ops.detrex.msda_backward``.

Both take values in float32, float64, bfloat16 or float16, locations and weights in the dtype of sums (float64
for float64, else float32), and the level shapes flattened to (height, width, height, width, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detrex.ops import cpu, cuda
from detrex.ops.library import Sizes
from detrex.ops.reference import dtype_of_sums

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Modules with the functions `forward` and `backward`, by type of device.
KERNELS = {"cpu": cpu, "cuda": cuda}


@torch.library.custom_op("detrex::msda", mutates_args=(), device_types=tuple(KERNELS))
def msda(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """Forward pass: (B, S, M, D), 2L numbers, (B, Q, M, L, P, 2) and (B, Q, M, L, P) to (B, Q, M * D).

    Returns:
        The output in the dtype of the value, rounded once.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit together.
        KernelError: if the kernel is not built, or cannot be.
    """
    sizes = check_sizes(value, shapes, locations, weights)
    inputs = [t.contiguous() for t in (value, locations, weights)]
    output = KERNELS[value.device.type].forward(sizes, shapes, *inputs)
    return output.flatten(2)


@torch.library.custom_op("detrex::msda_backward", mutates_args=(), device_types=tuple(KERNELS))
def msda_backward(
    value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor, grad_output: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights, in their dtypes, given that of the output (B, Q, M * D).

    Raises:
        ValueError: if shapes, dtypes or devices do not fit together.
        KernelError: if the kernel is not built, or cannot be.
        RuntimeError: on a GPU, if PyTorch may only use deterministic algorithms.
    """
    sizes = check_sizes(value, shapes, locations, weights)
    expected = (sizes.batch, sizes.queries, sizes.heads * sizes.dim)
    kind, kinds = (grad_output.dtype, grad_output.device), (value.dtype, value.device)
    if grad_output.shape != expected or kind != kinds:
        raise ValueError(
            f"the output's gradient must be {kinds[0]} of shape {expected} on {kinds[1]}, "
            f"not {kind[0]} of shape {tuple(grad_output.shape)} on {kind[1]}"
        )
    inputs = [t.contiguous() for t in (value, locations, weights, grad_output)]
    return KERNELS[value.device.type].backward(sizes, shapes, *inputs)


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
        'detrex.ops.force_implementation("reference"), which has those that grid_sample has'
    )


msda.register_autograd(_backward, setup_context=_save)
msda_backward.register_autograd(_second_backward)


def check_sizes(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Sizes:
    """Checks everything that the kernels assume, because they read memory by these numbers.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit together.
    """
    if value.dim() != 4 or locations.dim() != 6:
        raise ValueError(
            "value must be (B, S, M, D) and locations (B, Q, M, L, P, 2), "
            f"not {tuple(value.shape)} and {tuple(locations.shape)}"
        )
    sums = dtype_of_sums(value.dtype)
    if value.dtype not in DTYPES or not sums == locations.dtype == weights.dtype:
        raise ValueError(
            "value, locations and weights must all be float32 or all float64, or a value of bfloat16 or "
            f"float16 with float32, not {value.dtype}, {locations.dtype} and {weights.dtype}"
        )
    if not value.device == locations.device == weights.device:
        raise ValueError(
            "value, locations and weights must be on one device, "
            f"not on {value.device}, {locations.device} and {weights.device}"
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
