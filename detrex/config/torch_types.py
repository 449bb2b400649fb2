"""Types of PyTorch, for code that has to know them but need not import PyTorch, which takes seconds."""

from __future__ import annotations

import sys


def torch_types(*names: str) -> tuple[type, ...]:
    """Classes of ``torch`` for ``isinstance``; none before PyTorch is imported: they have no objects."""
    torch = sys.modules.get("torch")
    return () if torch is None else tuple(getattr(torch, name) for name in names)
