"""How the C library treats memory that tensors on the CPU no longer use."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Makes this process keep freed memory for later tensors, instead of returning it to the system.

    Tensors such as feature maps are larger than the blocks that glibc keeps (32 MB). By default, it returns
    each to the system and gets the next one as pages that are mapped and cleared one by one, which can take
    as long as the operator that fills them. Keeping pages costs some memory: the process does not shrink, and
    gaps between tensors remain. Settings in the environment (``MALLOC_MMAP_MAX_`` and others of glibc) have
    precedence.

    Returns:
        Whether freed memory is kept now; C libraries other than glibc are left as they are.
    """
    mallopt = _function("mallopt")
    if mallopt is None or any(name in os.environ for name in _SETTINGS):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))


def release_freed_memory() -> None:
    """Returns freed memory to the system; call it before worker processes are forked.

    Workers share all pages of this process, free ones too, and keep a copy of each page it later writes to.
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Callable[..., int] | None:
    """One of glibc's own functions, or None with another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
