"""The base class of hooks, and the part of the trainer that they see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class Average(Protocol):
    """A moving average of a model's weights, see :class:`detrex.engine.ema.WeightAverage`."""

    def weights(self) -> dict[str, Tensor]:
        """The averaged state dict, with the model's names."""


class Training(Protocol):
    """A run as its hooks see it; see :class:`detrex.engine.Trainer`, which is one.

    Hooks may set ``metrics``, lower ``max_iter`` to end the run, and set ``stopping``, on all processes, to
    end it after this step so that it can be resumed.
    """

    iteration: int
    max_iter: int
    metrics: dict[str, float]
    stopping: bool

    @property
    def module(self) -> nn.Module:
        """The model without its distributed wrapper."""

    @property
    def average(self) -> Average | None:
        """The moving average of the weights, if there is one."""

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of the model's parameters."""

    @property
    def scheduler(self) -> LRScheduler:
        """The schedule of the learning rates."""

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""

    @property
    def output_dir(self) -> Path:
        """The folder that the run writes to."""

    @property
    def step_taken(self) -> bool:
        """Whether the weights changed in the last step."""

    @property
    def losses(self) -> Mapping[str, Tensor]:
        """Losses of the last step by name: scalars, on the model's device."""

    @property
    def grad_norm(self) -> Tensor:
        """Norm of the last step's gradient before clipping, a scalar on the model's device."""

    @property
    def lr(self) -> float:
        """The largest learning rate in the last step."""

    @property
    def data_time(self) -> float:
        """Seconds that the last step waited for data."""

    @property
    def step_time(self) -> float:
        """Seconds that the last step took in total."""

    def weights(self) -> dict[str, Tensor]:
        """The state dict of the model; call it on all processes; it is complete on the main one."""

    def state_dict(self) -> dict[str, Any]:
        """The state without the weights and their average; call it on all processes."""


class Hook:
    """Called by the trainer on every process; a subclass overrides the methods that it needs."""

    def before_train(self, trainer: Training) -> None:
        """Called before the first step; a resumed trainer has its state already."""

    def before_step(self, trainer: Training) -> None:
        """Called before every step; ``trainer.iteration`` steps are done."""

    def after_step(self, trainer: Training) -> None:
        """Called after every step, which ``trainer.iteration`` already includes."""

    def after_train(self, trainer: Training) -> None:
        """Called after the last step."""

    def after_failure(self, trainer: Training) -> None:
        """Called after an error or a request to stop, in the state after the last complete step.

        Other processes may not get here, unless ``trainer.stopping`` is set: then all do.
        """

    def close(self) -> None:
        """Called at the very end, also after an error."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
