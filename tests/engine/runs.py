"""Runs of the dummy model for tests, and what they leave."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from omegaconf import DictConfig

from detrex.config import LazyConfig
from tests.engine import dummy

CONFIG = Path(__file__).with_name("dummy_config.py")


@cache
def _config() -> DictConfig:
    return LazyConfig.load(CONFIG)


def load(output_dir: Path, *overrides: str) -> DictConfig:
    return LazyConfig.apply_overrides(_config(), [f"train.output_dir={output_dir}", *overrides])


def evaluating(*values: float | None, name: str = "dummy/accuracy") -> str:
    """The override with which evaluations return ``values`` one after another; None ends the process."""
    shown = ", ".join("null" if value is None else f"{value:f}" for value in values)
    return f"dataloader.evaluators=[{{_target_: {dummy.__name__}.Given, name: {name}, values: [{shown}]}}]"


def killed_at(step: int) -> str:
    """The override with which the process ends when ``step`` steps are done."""
    return f"dataloader.train.killed_at={step}"


def metrics(output_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def losses(output_dir: Path) -> list[tuple[int, dict[str, float]]]:
    """All that is logged of training, but times and memory."""
    return [
        (m["iteration"], {k: v for k, v in m.items() if not k.endswith(("_time", "_memory_mb"))})
        for m in metrics(output_dir)
        if "loss" in m
    ]
