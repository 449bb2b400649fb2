"""How OpenMP's threads, with which PyTorch computes on CPUs, wait for their next piece of work."""

from __future__ import annotations

import os

WAITING = {
    "GOMP_SPINCOUNT": "1000",  # rounds, of GNU's OpenMP: PyTorch's on Linux
    "KMP_BLOCKTIME": "1",  # ms, of LLVM's and Intel's: PyTorch's on macOS and Windows
}
"""Environment variables, with the values that :func:`wait_briefly` gives them."""

SETTINGS = (*WAITING, "OMP_WAIT_POLICY", "KMP_LIBRARY")
"""All variables that tell OpenMP how to wait."""


def wait_briefly() -> bool:
    """Makes idle threads of OpenMP spin for a moment and then sleep, in this process and those it starts.

    Threads that spin for long take the cores from other work, and from each other. Threads that sleep at once
    wake up late. Both were measured: see ``docs/training.md``, "Busy machines".

    Call it before PyTorch is loaded, because OpenMP reads its settings then. Settings that the user made in
    the environment have precedence.

    Returns:
        Whether the settings were made.
    """
    if any(name in os.environ for name in SETTINGS):
        return False
    os.environ.update(WAITING)
    return True
