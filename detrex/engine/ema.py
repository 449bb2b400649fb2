"""An exponential moving average of the weights, which often gives better results than the weights."""

from __future__ import annotations

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from detrex.checkpoint import Checkpoint, CheckpointError

Tensors = tuple[Tensor, ...] | list[Tensor]

CHOICES = ("both", "ema", "raw")


class WeightAverage:
    """Averages the weights of a model over its optimizer steps.

    After update number ``t`` (from 1), the average is ``d * average + (1 - d) * weights`` with
    ``d = min(decay, (t - 1) / (t - 1 + warmup))``. With ``warmup=1``, this is the plain mean of all weights
    so far until ``decay`` is reached; with larger values, it spans about the last ``1 / warmup`` of the run
    so far, so that the poor first weights soon lose their influence. The first update copies the weights.

    Buffers (such as statistics of batch norms) are those of the model at the last update. The average takes
    the memory of the model once more, on its device; an update does not wait for that device. Every process
    keeps its own average of the same weights.

    Attributes:
        module: a copy of the model with the averaged weights, to be evaluated.
        updates: number of updates.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: float):
        """
        Args:
            model: on its device, without a distributed wrapper; the average starts at its weights.
            decay: share of the average that an update keeps, from 0 to below 1.
            warmup: see above, at least 0; with 0, the full decay applies from the start.

        Raises:
            ValueError: a number is out of its range.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"train.ema.decay must be from 0 to below 1, not {decay}")
        if warmup < 0:
            raise ValueError(f"train.ema.warmup must not be negative, but is {warmup}")
        self.updates = 0
        self._model = model
        self._decay = decay
        self._warmup = warmup
        self._averaged = AveragedModel(model, multi_avg_fn=self._mix)
        # The initial weights count as the first update; otherwise, the first update would replace them.
        self._averaged.n_averaged.fill_(1)
        self.module: nn.Module = self._averaged.module.requires_grad_(False)

    def update(self) -> None:
        """Adds the weights of the model to the average; call it after an optimizer step."""
        self._averaged.update_parameters(self._model)
        self.updates += 1

    def weights(self) -> dict[str, Tensor]:
        """The averaged state dict, with the model's names; it is not copied."""
        return self.module.state_dict()

    def load(self, weights: dict[str, Tensor], updates: int) -> None:
        """Continues from the result of :meth:`weights` and the value of ``updates``.

        Raises:
            ValueError: the names or shapes belong to another model.
        """
        expected = self.weights()
        wrong = [n for n in expected.keys() | weights.keys() if _shape(expected, n) != _shape(weights, n)]
        if wrong:
            raise ValueError(f"the averaged weights do not fit the model: {', '.join(sorted(wrong)[:3])}")
        self.module.load_state_dict(weights)
        self.updates = updates

    @torch.no_grad()
    def _mix(self, averages: Tensors, weights: Tensors, _count: Tensor | int) -> None:
        # Uses the number on the CPU: reading the other one would wait for the device.
        done = self.updates
        decay = min(self._decay, done / (done + self._warmup)) if self._warmup else self._decay
        torch._foreach_lerp_(averages, weights, 1 - decay)


def build_average(model: nn.Module, ema: DictConfig) -> WeightAverage | None:
    """The average that the node ``train.ema`` of a config asks for.

    Raises:
        ValueError: a value of the node is not allowed.
    """
    if ema.evaluate not in CHOICES:
        raise ValueError(f"train.ema.evaluate must be one of {', '.join(CHOICES)}, not {ema.evaluate!r}")
    return WeightAverage(model, ema.decay, ema.warmup) if ema.enabled else None


def restore_average(average: WeightAverage, checkpoint: Checkpoint) -> None:
    """Loads the averaged weights of a checkpoint.

    Raises:
        CheckpointError: the checkpoint has no averaged weights, or those of another model.
    """
    if checkpoint.average is None:
        raise CheckpointError(
            f"{checkpoint.path} has no averaged weights; train.ema.evaluate=raw takes the others"
        )
    try:
        average.load(checkpoint.average, checkpoint.state["average_updates"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error


def read_average(model: nn.Module, ema: DictConfig, checkpoint: Checkpoint | None) -> WeightAverage | None:
    """The average in a checkpoint, to be evaluated; None without a checkpoint, or if ``ema`` is not used.

    Args:
        model: with the weights of the checkpoint that are not averaged.
        ema: the node ``train.ema`` of a config.
        checkpoint: of the run to evaluate.

    Raises:
        CheckpointError: the checkpoint has no average, or the average of another model.
    """
    average = build_average(model, ema)
    if average is None or checkpoint is None or ema.evaluate == "raw":
        return None
    restore_average(average, checkpoint)
    return average


def _shape(weights: dict[str, Tensor], name: str) -> torch.Size | None:
    return weights[name].shape if name in weights else None
