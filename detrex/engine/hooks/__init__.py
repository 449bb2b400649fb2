"""What happens around training steps, one idea a file."""

from detrex.engine.hooks.base import Hook
from detrex.engine.hooks.early_stopping import EarlyStopping
from detrex.engine.hooks.evaluation import EvalHook
from detrex.engine.hooks.figures import gradient_norms, learning_rates, memory
from detrex.engine.hooks.goal import BestCheckpoint, Goal
from detrex.engine.hooks.history import EvaluationHistory
from detrex.engine.hooks.metrics import LogHook
from detrex.engine.hooks.profiler import ProfilerHook
from detrex.engine.hooks.progress import ProgressHook

__all__ = [
    "BestCheckpoint",
    "EarlyStopping",
    "EvalHook",
    "EvaluationHistory",
    "Goal",
    "Hook",
    "LogHook",
    "ProfilerHook",
    "ProgressHook",
    "gradient_norms",
    "learning_rates",
    "memory",
]
