"""What the C library does with memory that tensors on the CPU leave behind."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Lets this process keep memory that is free for later tensors, instead of giving it back to the system.

    Feature maps and their like are larger than what glibc keeps (32 MB). It would return each to the system
    and get the next one as pages that are mapped and cleared one by one, which takes as long as many an
    operator that fills them. Kept pages cost some memory: a process does not shrink, and gaps between tensors
    remain. Settings in the environment (``MALLOC_MMAP_MAX_`` and others of glibc) have precedence.

    Returns:
        Whether that is so now; C libraries other than glibc are left as they are.
    """
    mallopt = _function("mallopt")
    if mallopt is None or any(name in os.environ for name in _SETTINGS):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))


def release_freed_memory() -> None:
    """Gives memory that is free back to the system, to be called before worker processes are forked.

    They share all pages of this process, free ones too: of each that it writes to they would keep a copy.
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Callable[..., int] | None:
    """One of glibc's own functions, or None with another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
