"""Semantic results in their two forms: scores of classes and class indices."""

from __future__ import annotations

from torch import Tensor


def class_map(sem_seg: Tensor) -> Tensor:
    """Class indices (H, W) from class scores (C, H, W); class indices (H, W) stay as they are."""
    return sem_seg.argmax(0) if sem_seg.ndim == 3 else sem_seg  # noqa: PLR2004
