"""Hooks, which act before and after training steps."""

from detrex.engine.hooks.checkpoints import CheckpointHook
from detrex.engine.hooks.eval_hook import BestCheckpoint, EarlyStopping, EvalHook, EvaluationHistory, Goal
from detrex.engine.hooks.hook import Hook, Training
from detrex.engine.hooks.logging import LogHook, ProgressHook, gradient_norms, learning_rates, memory
from detrex.engine.hooks.profiler import ProfilerHook

__all__ = [
    "BestCheckpoint",
    "CheckpointHook",
    "EarlyStopping",
    "EvalHook",
    "EvaluationHistory",
    "Goal",
    "Hook",
    "LogHook",
    "ProfilerHook",
    "ProgressHook",
    "Training",
    "gradient_norms",
    "learning_rates",
    "memory",
]
