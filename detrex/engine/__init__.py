"""Training: the loop, its hooks, optimizers and schedules, logging, and complete runs from a config."""

from detrex.engine import schedule
from detrex.engine.hooks import CheckpointHook, EvalHook, Hook, LogHook, ProgressHook
from detrex.engine.launch import launch
from detrex.engine.lengths import epochs
from detrex.engine.nonfinite import NonFiniteLossError
from detrex.engine.optimizer import build_adamw
from detrex.engine.run import do_eval, do_train
from detrex.engine.trainer import Trainer
from detrex.engine.writers import JsonLinesWriter, TensorBoardWriter, WandbWriter, Writer, Writers

__all__ = [
    "CheckpointHook",
    "EvalHook",
    "Hook",
    "JsonLinesWriter",
    "LogHook",
    "NonFiniteLossError",
    "ProgressHook",
    "TensorBoardWriter",
    "Trainer",
    "WandbWriter",
    "Writer",
    "Writers",
    "build_adamw",
    "do_eval",
    "do_train",
    "epochs",
    "launch",
    "schedule",
]
