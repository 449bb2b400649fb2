"""How threads of OpenMP, which PyTorch computes with on CPUs, wait for their next piece of work."""

from __future__ import annotations

import os

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def wait_without_spinning() -> bool:
    """Lets idle threads of OpenMP sleep instead of spinning, in this process and those that it starts.

    To be called before PyTorch is loaded, for OpenMP reads its settings then. Settings of the user in the
    environment have precedence.

    Returns:
        Whether that is so now.
    """
    if any(name in os.environ for name in _SETTINGS):
        return False
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return True
