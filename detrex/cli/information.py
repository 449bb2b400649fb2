"""Describes what is installed on this machine and what runs on it."""

from __future__ import annotations

import os
from importlib.util import find_spec

import detrex
from detrex.config import configs_directory, projects_directory
from detrex.engine.folder import describe_environment
from detrex.ops_info import report
from detrex.runtime.cache import cache_folder
from detrex.runtime.device import default_device
from detrex.runtime.threads import SETTINGS

# Import names of optional packages, by purpose.
_EXTRAS = {
    "videos and cameras": "cv2",
    "Slurm": "submitit",
    "TensorBoard": "tensorboard",
    "Weights & Biases": "wandb",
    "result.to_pandas()": "pandas",
    "result.to_supervision()": "supervision",
    "Hugging Face hub": "huggingface_hub",
}


def describe() -> str:
    """Lines of ``name: value``."""
    lines = describe_environment(default_device()).splitlines()
    environment = [line for line in lines if not line.startswith("command:")]
    waiting = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    extras = [
        f"{use}: {'there' if find_spec(name) else f'not installed ({name})'}" for use, name in _EXTRAS.items()
    ]
    return "\n".join(
        [
            f"detrex-maskdino: {detrex.__version__}, {os.path.dirname(detrex.__file__)}",
            f"configs: {configs_directory()}",
            f"projects: {projects_directory()}",
            f"cache: {cache_folder('')}",
            *environment,
            f"idle threads of OpenMP: {', '.join(waiting) or 'as OpenMP decides'}",
            report(),
            *extras,
        ]
    )
