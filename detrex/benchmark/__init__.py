"""Measures speed and memory of the operator, of whole models by part, of data loading and of evaluation.

``docs/benchmarks.md`` tells how the numbers are measured; ``tools/benchmark.py`` is the command.
"""

from detrex.benchmark.data import measure_loading
from detrex.benchmark.device_report import device_report
from detrex.benchmark.evaluators import measure_evaluation
from detrex.benchmark.machine import GIBIBYTE, describe_machine
from detrex.benchmark.model import Setup
from detrex.benchmark.op import Case, measure_op, usable_implementations
from detrex.benchmark.scaling import AXES, bend, measure_scaling
from detrex.benchmark.syncs import count_syncs
from detrex.benchmark.worker import measure_models

__all__ = [
    "AXES",
    "GIBIBYTE",
    "Case",
    "Setup",
    "bend",
    "count_syncs",
    "describe_machine",
    "device_report",
    "measure_evaluation",
    "measure_loading",
    "measure_models",
    "measure_op",
    "measure_scaling",
    "usable_implementations",
]
