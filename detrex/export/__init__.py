"""Exports trained models to files that run without this toolbox: one graph from raw pictures to results.

from detrex.export import export

export("output/mine", "mine.onnx")
"""

from detrex.export.capture import Captured, ExportError, capture
from detrex.export.export import export
from detrex.export.prompting import export_prompts
from detrex.export.verification import Agreement, PromptAgreement, verify, verify_prompts
from detrex.export.web import export_web

__all__ = [
    "Agreement",
    "Captured",
    "ExportError",
    "PromptAgreement",
    "capture",
    "export",
    "export_prompts",
    "export_web",
    "verify",
    "verify_prompts",
]
