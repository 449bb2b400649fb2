"""An exponential moving average of the weights, which often evaluates better than the weights themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from detrex.checkpoint import Checkpoint, CheckpointError

if TYPE_CHECKING:
    from detrex.engine.evaluation import Evaluation

logger = logging.getLogger(__name__)

_CHOICES = ("both", "ema", "raw")


class WeightAverage:
    """Averages the trainable parameters of a model over its optimizer steps.

    After update number ``t`` (from 1) the average is ``d * average + (1 - d) * weights`` with
    ``d = min(decay, (t - 1) / (t - 1 + warmup))``. With ``warmup=1`` this is the plain mean of all weights so
    far until ``decay`` is reached; with larger values it spans about the last ``1 / warmup`` of the run so
    far, so that the first, poor weights soon count no more. The first update takes the weights as they are.

    Frozen parameters and buffers (such as statistics of batch norms) are those of the model at any time.
    Costs the memory of the trainable parameters once more, on their device; an update does not wait for that
    device. Every process keeps its own average, of the same weights.

    Attributes:
        updates: how many there were.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: float):
        """
        Args:
            model: on its device, without a distributed wrapper; the average starts at its weights.
            decay: share of the average that an update keeps, from 0 to below 1.
            warmup: see above, at least 0; 0 is the full decay from the start.

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
        self._live = [p for p in model.parameters() if p.requires_grad]
        self._average = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights of the model, after an optimizer step."""
        done = self.updates
        decay = min(self._decay, done / (done + self._warmup)) if self._warmup else self._decay
        torch._foreach_lerp_(self._average, self._live, 1 - decay)
        self.updates += 1

    def weights(self) -> dict[str, Tensor]:
        """The state dict of the model with averaged parameters, by the same names; not copied."""
        # By identity, for a parameter may have several names.
        averaged = {id(live): average for live, average in zip(self._live, self._average, strict=True)}
        tensors = self._model.state_dict(keep_vars=True)
        return {name: averaged.get(id(tensor), tensor.detach()) for name, tensor in tensors.items()}

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], updates: int) -> None:
        """Goes on from what :meth:`weights` returned and ``updates`` was.

        Raises:
            ValueError: the names or shapes are of another model.
        """
        own = self.weights()
        wrong = [n for n in own.keys() | weights.keys() if _shape(own, n) != _shape(weights, n)]
        if wrong:
            raise ValueError(f"the averaged weights do not fit the model: {', '.join(sorted(wrong)[:3])}")
        for name, tensor in own.items():
            tensor.copy_(weights[name])
        self.updates = updates

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """The model has the averaged weights inside the block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        # Values, not storages: the optimizer and a distributed wrapper hold on to the latter.
        for live, average in zip(self._live, self._average, strict=True):
            kept = average.clone()
            average.copy_(live)
            live.copy_(kept)


def build_average(model: nn.Module, ema: DictConfig) -> WeightAverage | None:
    """The average that the node ``train.ema`` of a config asks for.

    Raises:
        ValueError: a value of the node is not allowed.
    """
    if ema.evaluate not in _CHOICES:
        raise ValueError(f"train.ema.evaluate must be one of {', '.join(_CHOICES)}, not {ema.evaluate!r}")
    return WeightAverage(model, ema.decay, ema.warmup) if ema.enabled else None


def restore_average(average: WeightAverage, checkpoint: Checkpoint) -> None:
    """Loads the averaged weights of a checkpoint.

    Raises:
        CheckpointError: it has none, or those of another model.
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
    """The average in a checkpoint, to be evaluated; None if there is no checkpoint or it is not asked for.

    Args:
        model: with the other weights of the checkpoint.
        ema: the node ``train.ema`` of a config.
        checkpoint: of the run to evaluate.

    Raises:
        CheckpointError: the checkpoint has no average, or that of another model.
    """
    average = build_average(model, ema)
    if average is None or checkpoint is None or ema.evaluate == "raw":
        return None
    restore_average(average, checkpoint)
    return average


def evaluate_chosen(evaluation: Evaluation, average: WeightAverage | None, choice: str) -> dict[str, float]:
    """Evaluates the model's weights, their average, or both.

    Args:
        evaluation: its ``metrics`` are what is returned here.
        average: None if there is none.
        choice: ``raw``, ``ema`` or ``both``. With ``both`` the figures of the average have names that begin
            with ``ema/``, as in ``ema/segm/AP``; other results, such as pictures, are of the model's weights.
    """
    if average is None:
        return evaluation.run()
    averaged = {}
    if choice != "raw":
        logger.info("evaluating the averaged weights")
        with average.in_model():
            averaged = evaluation.run()
    if choice != "ema":
        logger.info("evaluating the weights as they are")
        averaged = {f"ema/{name}": value for name, value in averaged.items()}
        evaluation.metrics = {**evaluation.run(), **averaged}
    return evaluation.metrics


def chosen_weights(average: WeightAverage | None, choice: str) -> Any:
    """A context in which the model has the weights that :func:`evaluate_chosen` evaluated last."""
    return average.in_model() if average is not None and choice == "ema" else nullcontext()


def _shape(weights: dict[str, Tensor], name: str) -> torch.Size | None:
    return weights[name].shape if name in weights else None
