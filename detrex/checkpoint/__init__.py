"""Saves and loads models and training runs, and loads weights that others published."""

from detrex.checkpoint.checkpointer import (
    CHECKPOINTS,
    FINAL_AVERAGE,
    FINAL_WEIGHTS,
    Checkpoint,
    Checkpointer,
)
from detrex.checkpoint.fitting import LoadReport, load_weights
from detrex.checkpoint.loading import WeightsFile, load_pretrained, read_source
from detrex.checkpoint.weights import (
    CheckpointError,
    add_metadata,
    read_metadata,
    read_torch_file,
    read_weights,
    write_torch_file,
    write_weights,
)
from detrex.checkpoint.zoo import ZooEntry, entry_of_config, zoo_entries, zoo_entry

__all__ = [
    "CHECKPOINTS",
    "FINAL_AVERAGE",
    "FINAL_WEIGHTS",
    "Checkpoint",
    "CheckpointError",
    "Checkpointer",
    "LoadReport",
    "WeightsFile",
    "ZooEntry",
    "add_metadata",
    "entry_of_config",
    "load_pretrained",
    "load_weights",
    "read_metadata",
    "read_source",
    "read_torch_file",
    "read_weights",
    "write_torch_file",
    "write_weights",
    "zoo_entries",
    "zoo_entry",
]
