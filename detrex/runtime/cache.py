"""The folder for everything that can be made again: downloads, parsed annotations, compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

CACHE_VARIABLE = "DETREX_CACHE"
"""Environment variable that names another folder."""


def cache_folder(kind: str) -> Path:
    """The folder for one kind of content: in ``$DETREX_CACHE``, else in the user's cache folder.

    The latter is ``detrex`` in ``$XDG_CACHE_HOME`` or ``~/.cache`` on Linux, in ``~/Library/Caches`` on
    macOS. The folder need not exist.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser() / kind
    return user_cache_path("detrex", appauthor=False) / kind
