"""Types of PyTorch, for code that has to recognise them without importing PyTorch, which takes seconds."""

from __future__ import annotations

import sys


def torch_types(*names: str) -> tuple[type, ...]:
    """Classes of ``torch`` for ``isinstance``; empty before PyTorch is imported: no objects exist yet."""
    torch = sys.modules.get("torch")
    return () if torch is None else tuple(getattr(torch, name) for name in names)
