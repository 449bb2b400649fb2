"""The folder of a run: names of files, and the files that describe the run beside its checkpoints."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

import detrex
from detrex.checkpoint import CHECKPOINTS, FINAL_AVERAGE, FINAL_WEIGHTS, Checkpointer
from detrex.config import LazyConfig
from detrex.structures import Categories

METRICS, EVALUATIONS, REPORT, PROFILES = "metrics.jsonl", "evaluations.json", "report.html", "profile"
_FILES = (
    "log.txt",
    METRICS,
    EVALUATIONS,
    REPORT,
    "results.json",
    "predictions.png",
    FINAL_WEIGHTS,
    FINAL_AVERAGE,
    "wandb_id.txt",
)
_FOLDERS = (CHECKPOINTS, "nonfinite", PROFILES, "tensorboard", "wandb")
_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "pycocotools",
    "omegaconf",
    "hydra-core",
    "safetensors",
)


def make_room(output_dir: Path, overwrite: bool) -> None:
    """Makes sure that a new run does not mix with an earlier one in the same folder.

    Args:
        output_dir: of the new run.
        overwrite: delete what an earlier run wrote; other files in the folder stay.

    Raises:
        FileExistsError: there are checkpoints of an earlier run, and ``overwrite`` is not set.
    """
    if overwrite:
        for name in _FILES:
            (output_dir / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(output_dir / name, ignore_errors=True)
    elif Checkpointer(output_dir / CHECKPOINTS).paths():
        raise FileExistsError(
            f"{output_dir} holds the checkpoints of an earlier run: give --resume to go on with it, "
            "--overwrite to delete it, or another train.output_dir"
        )


def save_run_files(
    output_dir: Path, config: DictConfig, categories: Categories | None, device: torch.device
) -> None:
    """Writes ``config.yaml`` (after overrides), ``categories.json`` and ``environment.txt``."""
    output_dir.mkdir(parents=True, exist_ok=True)
    LazyConfig.save(config, output_dir / "config.yaml")
    if categories is not None:
        text = json.dumps(categories.to_dict(), indent=2)
        (output_dir / "categories.json").write_text(text + "\n", encoding="utf-8")
    (output_dir / "environment.txt").write_text(describe_environment(device), encoding="utf-8")


def checkpoint_metadata(config: DictConfig, categories: Categories | None) -> dict[str, str]:
    """The metadata for files of weights, so that a file is enough to use the model."""
    metadata = {"config": OmegaConf.to_yaml(config)}
    if categories is not None:
        metadata["categories"] = json.dumps(categories.to_dict())
    return metadata


def describe_environment(device: torch.device) -> str:
    """Command line, versions, device and source revision, one on each line."""
    lines = {
        "command": shlex.join(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "cuda": torch.version.cuda or "not in this build of torch",
        "threads": str(torch.get_num_threads()),
        "revision": _git_revision(),
        **{name: _version(name) for name in _PACKAGES},
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def _git_revision() -> str:
    source = Path(detrex.__file__).resolve().parent
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "not in a git checkout"
    return done.stdout.strip()
