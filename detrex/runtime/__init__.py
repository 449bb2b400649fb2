"""What runs without PyTorch: models that were exported; and what every part needs from the machine.

from detrex.runtime import load

model = load("model.onnx")
result = model.predict("photo.jpg", score_threshold=0.5)

Nothing is imported here before it is used, so that a single module of it costs no more than itself.
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
