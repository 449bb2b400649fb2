"""Measures models: COCO and LVIS AP of boxes, masks and boundaries, panoptic quality, semantic IoU."""

from detrex.evaluation.cityscapes import CityscapesInstanceEvaluator
from detrex.evaluation.coco import CocoEvaluator
from detrex.evaluation.loop import Evaluator, collect_per_class, evaluate, evaluation_mode
from detrex.evaluation.lvis import LvisEvaluator
from detrex.evaluation.one_click import OneClickEvaluator
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
    "CityscapesInstanceEvaluator",
    "CocoEvaluator",
    "Evaluator",
    "LvisEvaluator",
    "OneClickEvaluator",
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
