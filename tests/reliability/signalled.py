"""A loader in whose run somebody asks it to stop."""

from __future__ import annotations

import os
import time
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

    def batch(self, position):
        if position == self._at and rank() == world_size() - 1:
            os.kill(os.getpid(), self._signal)
        return super().batch(position)


class SignalledTestLoader(dummy.TestLoader):
    """The process gets ``signal`` while image ``at`` (from 0) is evaluated, and reads on for ever."""

    def __init__(self, dataset, at: int, signal: int):
        super().__init__(dataset)
        self._at, self._signal = at, signal

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if number == self._at:
                os.kill(os.getpid(), self._signal)
                while True:
                    time.sleep(0.01)
            yield batch


def signalled_in_evaluation(output_dir: Path, number: int, *overrides: str) -> DictConfig:
    """The dummy's config, with evaluation after every second step and no checkpoint of its own."""
    config = load(output_dir, "train.checkpoint.period=0", "train.eval_period=2", *overrides)
    with open_dict(config):
        config.dataloader.test._target_ = f"{__name__}.SignalledTestLoader"
        config.dataloader.test.update(at=5, signal=int(number))
    return config


def signalled(output_dir: Path, number: int, at: int = 3, *overrides: str) -> DictConfig:
    """The dummy's config, with checkpoints at the end alone, whose loader sends the signal ``number``."""
    config = load(output_dir, "train.checkpoint.period=0", "train.eval_period=0", *overrides)
    with open_dict(config):
        config.dataloader.train._target_ = f"{__name__}.SignalledLoader"
        config.dataloader.train.update(at=at, signal=int(number))
    return config
