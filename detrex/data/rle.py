"""Checks COCO's compressed run-length encoding: of one too short, pycocotools makes random pixels."""

from __future__ import annotations

import numpy as np


def rle_length(counts: str | bytes) -> int:
    """How many pixels the runs of a compressed RLE are together.

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
