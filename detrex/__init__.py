"""DETR-style detection and segmentation: shared layers, plain-Python configs, one training tool.

import detrex

run = detrex.train("maskdino_custom_instance", "dataloader.root=mydata", "train.output_dir=output/mine")
model = detrex.load(run.folder)
model("photo.jpg").save("found.png")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detrex.predict import Detection, Predictor, Result, load
    from detrex.training import TrainedRun, train

__version__ = "0.1.0"
__all__ = ["Detection", "Predictor", "Result", "TrainedRun", "__version__", "load", "train"]

# Imported at first use: these need PyTorch, which takes seconds.
_MODULES = {
    "Detection": "detrex.predict",
    "Predictor": "detrex.predict",
    "Result": "detrex.predict",
    "TrainedRun": "detrex.training",
    "load": "detrex.predict",
    "train": "detrex.training",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
