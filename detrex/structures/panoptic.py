"""Segment ids in COCO panoptic PNGs: an id is R + 256 G + 65536 B."""

from __future__ import annotations

import numpy as np

_WEIGHTS = np.array([1, 256, 65536], np.int32)


def ids_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 pixels of a panoptic PNG to (H, W) int32 segment ids; 0 is void."""
    return rgb.astype(np.int32) @ _WEIGHTS


def rgb_from_ids(ids: np.ndarray) -> np.ndarray:
    """(H, W) integer segment ids in [0, 2**24) to (H, W, 3) uint8 pixels of a panoptic PNG."""
    return (ids[..., None] // _WEIGHTS % 256).astype(np.uint8)
