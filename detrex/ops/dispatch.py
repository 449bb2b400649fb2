"""Chooses the implementation of multi-scale deformable attention."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from detrex.ops.cpu import attend
from detrex.ops.cuda import MAX_DIM, MAX_LEVELS, cuda_obstacle
from detrex.ops.library import KernelError, cpu_library
from detrex.ops.operator import DTYPES, KERNELS, check_sizes, msda
from detrex.ops.reference import dtype_of_sums, multi_scale_deformable_attention_reference

VARIABLE = "DETREX_MSDA"
IMPLEMENTATIONS = ("auto", "reference", "kernel")


def _checked(name: str, origin: str) -> str:
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"{origin} must be one of {', '.join(IMPLEMENTATIONS)}, not {name!r}")
    return name


_wanted = _checked(os.environ.get(VARIABLE, "auto"), f"the environment variable {VARIABLE}")


def wanted_implementation() -> str:
    """The implementation that the environment variable or the innermost :func:`force_implementation` sets."""
    return _wanted


@contextmanager
def force_implementation(name: str) -> Iterator[None]:
    """Inside the block, deformable attention runs as ``"reference"`` (PyTorch), ``"kernel"`` or ``"auto"``.

    ``"kernel"`` is the kernel of the tensors' device, and an error if there is none; ``"auto"`` uses the
    kernel if it can. It applies to the whole process, including other threads. Backward passes follow their
    forward pass. Put it around compiled functions, not inside them.

    Raises:
        ValueError: for another name.
    """
    global _wanted
    before, _wanted = _wanted, _checked(name, "the implementation")
    try:
        yield
    finally:
        _wanted = before


def multi_scale_deformable_attention(
    value: Tensor, shapes: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples of every level, zero outside (Deformable DETR, arXiv 2010.04159).

    Shape letters: B images, S tokens of all levels, Q queries, M heads, L levels, P points, D channels per
    head. A location that is not finite makes the output of its query and head NaN.

    Values of float64 are summed in float64, all others in float32, also under autocast. Locations and weights
    should have the dtype of the sums, whatever the value's: rounded to bfloat16, a location moves by up to
    half a cell on a level of 256.

    Args:
        value: (B, S, M, D).
        shapes: (height, width) of the L levels, in the order of the tokens.
        locations: (B, Q, M, L, P, 2) normalised (x, y); (0, 0) and (1, 1) are a level's outer corners.
        weights: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D), in the dtype of the value.

    Raises:
        RuntimeError: if the kernel is forced and cannot run.
        ValueError: if only some tensors are float64; from the kernels, for shapes that do not fit together.
    """
    sums = dtype_of_sums(value.dtype)
    if not sums == dtype_of_sums(locations.dtype) == dtype_of_sums(weights.dtype):
        raise ValueError(
            "the dtypes of value, locations and weights must be summed in the same, float64 or float32, "
            f"not {value.dtype}, {locations.dtype} and {weights.dtype}"
        )
    locations, weights = locations.to(sums), weights.to(sums)
    if value.device.type == "meta":
        # Nothing is computed here, so the operator gives shapes and FLOPs, whichever implementation will run.
        return _by_kernel(value, shapes, locations, weights)
    if _wanted != "reference":
        obstacle = kernel_obstacle(value, locations)
        if obstacle is None:
            return _by_kernel(value, shapes, locations, weights)
        if _wanted == "kernel":
            raise RuntimeError(f"deformable attention is forced to its kernel, which cannot run: {obstacle}")
    return multi_scale_deformable_attention_reference(value, shapes, locations, weights)


def attend_around(
    value: Tensor, shapes: tuple[tuple[int, int], ...], reference: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor | None:
    """Deformable attention from offsets and logits, without gradients, in one pass of the CPU's kernel.

    Args:
        value: (B, S, M, D) float32 or bfloat16.
        shapes: see :func:`multi_scale_deformable_attention`.
        reference: (B or 1, Q, L or 1, 2 or 4) positions of queries: normalised (x, y) or cxcywh.
        offsets: (B, Q, M, L, P, 2) from these, in cells of the level for points, in half sides for boxes.
        logits: (B, Q, M, L, P), whose softmax over L and P gives the weights.

    Returns:
        (B, Q, M * D) in the dtype of the value; None if the kernel cannot do this.

    Raises:
        ValueError: for shapes that do not fit together.
    """
    library = cpu_library() if value.device.type == "cpu" and _wanted != "reference" else None
    if (
        library is None
        or isinstance(library, KernelError)
        or torch.is_grad_enabled()
        or value.dtype not in (torch.float32, torch.bfloat16)
        or logits.shape[3] * logits.shape[4] > library.handle.msda_most_samples()
    ):
        return None
    flat = [side for shape in shapes for side in shape]
    dense, placed, weighed = (t.float().contiguous() for t in (value, offsets, logits))
    sizes = check_sizes(dense, flat, placed, weighed)
    where = reference.float()
    if where.stride(-1) != 1:
        where = where.contiguous()
    expected = ((1, sizes.batch), (sizes.queries,), (1, sizes.levels), (2, 4))
    if where.dim() != 4 or any(n not in fit for n, fit in zip(where.shape, expected, strict=True)):
        raise ValueError(f"a reference {tuple(where.shape)} does not fit offsets {tuple(offsets.shape)}")
    return attend(sizes, flat, dense, where, placed, weighed).flatten(2).to(value.dtype)


def kernel_obstacle(value: Tensor, locations: Tensor) -> str | None:
    """The reason why no kernel can take these tensors; None if one can."""
    device = value.device
    if device.type not in KERNELS:
        return f"there is no kernel for {device.type} tensors"
    if value.dtype not in DTYPES:
        return f"there is no kernel for {value.dtype}"
    if device.type == "cpu":
        return _library_obstacle()
    if value.shape[-1] > MAX_DIM or locations.shape[3] > MAX_LEVELS:
        return f"the CUDA kernel takes up to {MAX_DIM} channels per head and {MAX_LEVELS} levels"
    return _cuda_obstacle(device.index)


# Traced as constants, because loading a library cannot be compiled.
@torch.compiler.assume_constant_result
def _library_obstacle() -> str | None:
    library = cpu_library()
    return str(library) if isinstance(library, KernelError) else None


@torch.compiler.assume_constant_result
def _cuda_obstacle(device: int) -> str | None:
    return cuda_obstacle(device)


def _by_kernel(
    value: Tensor, shapes: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
) -> Tensor:
    return msda(value, [side for shape in shapes for side in shape], locations, weights)
