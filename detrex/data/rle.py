"""COCO's compressed run-length encoding of masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from torch import Tensor


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """(N, H, W) bool masks on any device to COCO's compressed RLE, with one transfer to the host."""
    # pycocotools wants column-major (H, W, N): (N, W, H) is transposed to it for free, once on the host.
    columns = masks.transpose(1, 2).contiguous().cpu().numpy().view(np.uint8)
    rles = coco_mask.encode(columns.transpose(2, 1, 0)) if len(columns) else []
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")} for rle in rles]


def rle_length(counts: str | bytes) -> int:
    """How many pixels the runs of a compressed RLE are together.

    Of one that is too short, pycocotools makes random pixels.

    Each number is a series of characters, from the lowest 5 bits to the highest; bit 5 of a character (after
    48 is taken off) says that another one follows, and bit 4 of the last one is the sign. From the fourth on,
    a number is the difference to the run before the previous one.

    Raises:
        ValueError: it ends within a number, or a run is negative.
    """
    data = counts.encode() if isinstance(counts, str) else counts
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError("it ends within a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((codes & 31) << place, starts)
    values -= np.where(codes[ends] & 16, 32 << place[ends], 0)
    runs = [values[:1], np.cumsum(values[1::2]), np.cumsum(values[2::2])]
    if any((r < 0).any() for r in runs):
        raise ValueError("a run is negative")
    return int(sum(r.sum() for r in runs))
