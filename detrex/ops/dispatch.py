"""Which implementation of multi-scale deformable attention runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from detrex.ops.cpu import DTYPES, msda
from detrex.ops.library import LibraryError, cpu_library
from detrex.ops.reference import multi_scale_deformable_attention_reference

VARIABLE = "DETREX_MSDA"
IMPLEMENTATIONS = ("auto", "reference", "cpp")
_LOW_PRECISION = (torch.bfloat16, torch.float16)


def _checked(name: str, origin: str) -> str:
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"{origin} must be one of {', '.join(IMPLEMENTATIONS)}, not {name!r}")
    return name


_wanted = _checked(os.environ.get(VARIABLE, "auto"), f"the environment variable {VARIABLE}")


def wanted_implementation() -> str:
    """What the environment variable or the innermost :func:`force_implementation` asks for."""
    return _wanted


@contextmanager
def force_implementation(name: str) -> Iterator[None]:
    """Runs deformable attention as ``"reference"``, ``"cpp"`` or ``"auto"`` (the kernel where it can) inside.

    Holds for the whole process, other threads included. Backward passes follow their forward pass. Put it
    around compiled functions, not into them.

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
    head. A location that is not finite makes the output of its query and head NaN. The kernel sums bfloat16
    in float32.

    Args:
        value: (B, S, M, D).
        shapes: (height, width) of the L levels, in the order of the tokens.
        locations: (B, Q, M, L, P, 2) normalised (x, y); (0, 0) and (1, 1) are a level's outer corners.
        weights: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D).

    Raises:
        RuntimeError: if the kernel is forced and cannot run, or if dtypes differ without autocast.
        ValueError: by the kernel, for shapes that do not fit together.
    """
    if value.device.type == "meta":
        # Nothing is computed, so nothing is chosen: shapes and FLOPs are the operator's, whatever will run.
        return _by_kernel(value, shapes, locations, weights)
    if _wanted != "reference":
        obstacle = kernel_obstacle(value, locations, weights)
        if obstacle is None:
            return _by_kernel(value, shapes, locations, weights)
        if _wanted == "cpp":
            raise RuntimeError(
                f"deformable attention is forced to its C++ kernel, which cannot run: {obstacle}"
            )
    return multi_scale_deformable_attention_reference(value, shapes, locations, weights)


def kernel_obstacle(*tensors: Tensor) -> str | None:
    """Why the kernel cannot take these tensors; None if it can."""
    missing = _library_obstacle()
    if missing is not None:
        return missing
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"there is no kernel for {tensor.device.type} tensors"
    dtypes = {_dtype_of_sums(tensor) for tensor in tensors}
    if len(dtypes) > 1:
        return "the dtypes of value, locations and weights differ"
    if not dtypes <= {*DTYPES, torch.bfloat16}:
        return f"there is no kernel for {tensors[0].dtype}"
    return None


@torch.compiler.assume_constant_result
def _library_obstacle() -> str | None:
    """Traced as a constant: loading a library is nothing to compile."""
    library = cpu_library()
    return str(library) if isinstance(library, LibraryError) else None


def _dtype_of_sums(tensor: Tensor) -> torch.dtype:
    """Autocast makes lower precision float32 here, as it does in the reference for ``grid_sample``."""
    low = tensor.dtype in _LOW_PRECISION
    return torch.float32 if low and torch.is_autocast_enabled("cpu") else tensor.dtype


def _by_kernel(
    value: Tensor, shapes: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
) -> Tensor:
    result = _dtype_of_sums(value)
    sums = torch.float32 if result == torch.bfloat16 else result
    flat_shapes = [side for shape in shapes for side in shape]
    output = msda(value.to(sums), flat_shapes, locations.to(sums), weights.to(sums))
    return output.to(result)
