"""Tells when layers must compute with PyTorch's usual operators."""

from __future__ import annotations

import torch
import torch.utils._python_dispatch as python_dispatch


def is_traced() -> bool:
    """Whether operators are compiled, recorded or counted, so that they must be PyTorch's usual ones."""
    return (
        torch.compiler.is_compiling() or torch.jit.is_tracing() or python_dispatch.is_in_torch_dispatch_mode()
    )
