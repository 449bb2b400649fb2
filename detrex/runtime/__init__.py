"""Exported models, which run without PyTorch, and what every package needs from the machine.

from detrex.runtime import load

model = load("model.onnx")
result = model.predict("photo.jpg", score_threshold=0.5)

Names are imported when they are first used, so importing one module of this package does not load the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detrex.runtime.exported import Detection, Precision, Predictor, Result, load

__all__ = ["Detection", "Precision", "Predictor", "Result", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module("detrex.runtime.exported"), name)
    globals()[name] = value
    return value
