"""The default folders of data sets."""

from __future__ import annotations

import os

VARIABLES = ("DETREX_DATASETS", "DETECTRON2_DATASETS")
"""Environment variables with the folder of all data sets; the first one that is set counts."""


def dataset_root(name: str) -> str:
    """The folder of a data set, in the folder of all data sets or else in ``datasets`` of the current one.

    Args:
        name: of the data set's folder, such as ``coco``.
    """
    root = next((os.environ[variable] for variable in VARIABLES if os.environ.get(variable)), "datasets")
    return os.path.join(os.path.expanduser(root), name)
