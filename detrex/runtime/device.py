"""The device that a process computes on, and its numerical precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

_DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def default_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is this process's GPU where there is one, else the CPU.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        return default_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used on this machine: {reason}") from error
    if device.type == "cuda" and device.index is None:
        return default_device()
    return device


def autocast(amp: str, device: torch.device) -> AbstractContextManager:
    """Mixed precision on ``device``: ``off`` (none), ``bf16`` or ``fp16``.

    Raises:
        ValueError: for any other value.
    """
    dtype = _dtype(amp)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def set_tf32(enabled: bool) -> None:
    """Sets whether float32 matrix products and convolutions on GPUs may round inputs to TF32 (10 bits)."""
    torch.set_float32_matmul_precision("high" if enabled else "highest")
    torch.backends.cudnn.allow_tf32 = enabled


def is_scaled(amp: str) -> bool:
    """Whether the format is too coarse for small gradients, so that the loss must be scaled up."""
    return _dtype(amp) == torch.float16


def _dtype(amp: str) -> torch.dtype | None:
    if amp not in _DTYPES:
        raise ValueError(f"amp must be one of {', '.join(_DTYPES)}, not {amp!r}")
    return _DTYPES[amp]
