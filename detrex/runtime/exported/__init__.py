"""Prediction with models that ``detrex export`` wrote: needs numpy and a runtime, but no PyTorch."""

from detrex.runtime.exported.description import Description, ExportedModelError
from detrex.runtime.exported.predictor import Predictor, load
from detrex.runtime.exported.prompts import Answer, PromptGraphs, PromptPredictor, load_prompts
from detrex.runtime.exported.result import Detection, Result
from detrex.runtime.exported.runners import Runner
from detrex.runtime.exported.thresholds import Precision

__all__ = [
    "Answer",
    "Description",
    "Detection",
    "ExportedModelError",
    "Precision",
    "Predictor",
    "PromptGraphs",
    "PromptPredictor",
    "Result",
    "Runner",
    "load",
    "load_prompts",
]
