"""Where data sets are, unless a config says otherwise."""

from __future__ import annotations

import os

VARIABLES = ("DETREX_DATASETS", "DETECTRON2_DATASETS")
"""Environment variables with the folder of all data sets; the first one that is set counts."""


def dataset_root(name: str) -> str:
    """The folder of a data set: in that of all data sets, else in ``datasets`` where a command is started.

    Args:
        name: of its folder, such as ``coco``.
    """
    root = next((os.environ[variable] for variable in VARIABLES if os.environ.get(variable)), "datasets")
    return os.path.join(os.path.expanduser(root), name)
