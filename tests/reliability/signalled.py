"""A loader in whose run somebody asks it to stop."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, open_dict

from detrex.runtime.distributed import rank, world_size
from tests.engine import dummy
from tests.engine.runs import load


class SignalledLoader(dummy.TrainLoader):
    """The last process gets ``signal`` while it loads batch ``at`` (from 0)."""

    def __init__(self, *args, at: int, signal: int, **kwargs):
        super().__init__(*args, **kwargs)
        self._at, self._signal = at, signal

    def _batch(self, position):
        if position == self._at and rank() == world_size() - 1:
            os.kill(os.getpid(), self._signal)
        return super()._batch(position)


def signalled(output_dir: Path, number: int, at: int = 3, *overrides: str) -> DictConfig:
    """The dummy's config, with checkpoints at the end alone, whose loader sends the signal ``number``."""
    config = load(output_dir, "train.checkpoint.period=0", "train.eval_period=0", *overrides)
    with open_dict(config):
        config.dataloader.train._target_ = f"{__name__}.SignalledLoader"
        config.dataloader.train.update(at=at, signal=int(number))
    return config
