"""Measuring models: COCO box and mask AP, panoptic quality, semantic IoU."""

from detrex.evaluation.coco import CocoEvaluator
from detrex.evaluation.loop import Evaluator, collect_per_class, evaluate, evaluation_mode
from detrex.evaluation.panoptic import PanopticEvaluator
from detrex.evaluation.report import (
    PerClass,
    format_classes,
    format_per_class,
    format_summary,
    format_table,
    write_results,
)
from detrex.evaluation.semantic import SemanticEvaluator

__all__ = [
    "CocoEvaluator",
    "Evaluator",
    "PanopticEvaluator",
    "PerClass",
    "SemanticEvaluator",
    "collect_per_class",
    "evaluate",
    "evaluation_mode",
    "format_classes",
    "format_per_class",
    "format_summary",
    "format_table",
    "write_results",
]
