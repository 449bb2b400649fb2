"""Saving and loading of models and training runs."""

from detrex.checkpoint.checkpointer import Checkpoint, Checkpointer
from detrex.checkpoint.weights import (
    CheckpointError,
    LoadReport,
    load_weights,
    read_torch_file,
    read_weights,
    write_weights,
)

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Checkpointer",
    "LoadReport",
    "load_weights",
    "read_torch_file",
    "read_weights",
    "write_weights",
]
