"""COCO's run-length encoding of masks, with numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np

# A character holds five bits of a number and a bit that says whether more follow; the lowest one is "0".
_BITS, _FIRST = 5, 48


def encode(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) bool as ``size`` and ``counts``, as in COCO's files of results.

    Runs go down the columns; the first one counts pixels outside the mask.
    """
    height, width = mask.shape
    pixels = np.concatenate([[False], mask.flatten(order="F")])
    bounds = np.flatnonzero(pixels[1:] != pixels[:-1])
    runs = np.diff([0, *bounds.tolist(), height * width]).tolist()
    return {"size": [height, width], "counts": _compressed(runs)}


def _compressed(runs: list[int]) -> str:
    """The runs as text; from the fourth number on, as differences to the number two places before."""
    return "".join(_characters(run - (runs[i - 2] if i > 2 else 0)) for i, run in enumerate(runs))


def _characters(number: int) -> str:
    text = ""
    while True:
        low = number & (2**_BITS - 1)
        number >>= _BITS
        negative = bool(low & 2 ** (_BITS - 1))
        more = number != (-1 if negative else 0)
        text += chr(low + (2**_BITS if more else 0) + _FIRST)
        if not more:
            return text
