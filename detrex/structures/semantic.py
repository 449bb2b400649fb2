"""Semantic results in their two forms."""

from __future__ import annotations

from torch import Tensor


def class_map(sem_seg: Tensor) -> Tensor:
    """(H, W) class indices of class scores (C, H, W); class indices (H, W) stay as they are."""
    return sem_seg.argmax(0) if sem_seg.ndim == 3 else sem_seg  # noqa: PLR2004
