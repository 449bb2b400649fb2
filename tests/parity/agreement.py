"""How far arrays are from those of a parity kit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from detrex.checkpoint import load_pretrained
from detrex.config import instantiate
from detrex.structures import Sample

# Largest errors: of evaluation in spreads (standard deviations) of the kit's array, of losses and gradients
# relative to the kit's number, of masks and maps as the share of pixels that differ. Gradients sum up
# the rounding of all that comes before them.
TOLERANCE, LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3, 2e-3
# Masks are stored in half precision, whose own rounding of the largest logits is a few 1e-3 of the spread.
HALF_TOLERANCE = 5e-3


@dataclass
class Agreement:
    """How far an array is from the kit's.

    Attributes:
        name: of the array.
        error: the largest difference; of masks, maps and classes, how many pixels or classes differ.
        spread: what ``error`` is measured in: the reference's standard deviation, its size, or their number.
        tolerance: on ``error / spread``.
    """

    name: str
    error: float
    spread: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance * self.spread

    def line(self) -> str:
        verdict = "" if self.holds else f"   OFF: more than {self.tolerance:g} of the spread"
        return f"{self.name:<70} {self.error:<12.3e} {self.spread:<12.3e}{verdict}"


class Arrays(dict):
    """The arrays of a case, remembering which were asked for, so that none goes unnoticed."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        super().__init__(arrays)
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self.used.add(name)
        return super().__getitem__(name)

    def unused(self) -> list[str]:
        """Arrays that nothing was compared with; the case's own weights are read by the kit itself."""
        return [name for name in self if name not in self.used and not name.startswith("weights.")]


def load_model(config: DictConfig, weights: dict[str, Tensor]) -> nn.Module:
    """The configured model, with the weights loaded from a file as published."""
    model = instantiate(config.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "published.pth"
        torch.save({"model": weights}, path)
        load_pretrained(model, path, strict=True)
    return model


def compare(name: str, ours: Tensor, published: np.ndarray, tolerance: float = TOLERANCE) -> Agreement:
    reference = torch.from_numpy(np.asarray(published, np.float32))
    if ours.shape != reference.shape:
        raise ValueError(f"{name}: shape {tuple(ours.shape)}, the kit has {tuple(reference.shape)}")
    error = (ours.detach().float() - reference).abs().max()
    # Numbers that are nearly the same all over are no more exact than float32 has them.
    rounding = 4 * torch.finfo(torch.float32).eps * reference.abs().max() / tolerance
    return Agreement(name, float(error), float(reference.std().clamp(min=max(1e-6, rounding))), tolerance)


def count(name: str, differs: Tensor) -> Agreement:
    """How many of the pixels or classes differ, by ``differs`` (bool)."""
    return Agreement(name, float(differs.sum()), float(differs.numel()), TOLERANCE)


def best_order(ours: Tensor, published: np.ndarray) -> Tensor:
    """For each of the kit's rows, (N, D), the row of ``ours`` that is nearest, each used once."""
    distance = cdist(published, ours.double().numpy())
    return torch.from_numpy(linear_sum_assignment(distance)[1])


def relative(name: str, ours: float, published: float, floor: float, tolerance: float) -> Agreement:
    """Of two numbers; the smallest are sums of terms that cancel, hence the absolute ``floor``."""
    return Agreement(name, abs(ours - published), abs(published) + floor, tolerance)


def training_agreement(
    model: nn.Module,
    samples: list[Sample],
    arrays: Arrays,
    loss_name: Callable[[str], str],
    own_parameters: Mapping[str, list[str]],
) -> Iterator[Agreement]:
    """Every weighted loss and every parameter's gradient norm, as relative errors.

    Args:
        model: with the kit's weights.
        samples: the kit's batch, with targets.
        arrays: of the kit.
        loss_name: the kit's name for one of the model's losses.
        own_parameters: the model's parameters that hold a parameter of the kit.
    """
    model.train()
    model.zero_grad()
    losses = {loss_name(name): loss for name, loss in model(samples).items()}
    yield from loss_agreement(losses, arrays)
    torch.stack(list(losses.values())).sum().backward()
    yield from gradient_agreement(model, arrays, own_parameters)


def loss_agreement(
    losses: Mapping[str, Tensor],
    arrays: Arrays,
    case: str = "train",
    floor: float = 1e-3,
    tolerance: float = LOSS_TOLERANCE,
) -> Iterator[Agreement]:
    """Losses by the kit's names, and their sum, against the arrays ``<case>.loss.*``."""
    names = arrays[f"{case}.loss.names"].tolist()
    if set(names) != set(losses):
        raise ValueError(f"names of losses differ: {sorted(set(names) ^ set(losses))}")
    for name, value in zip(names, arrays[f"{case}.loss.values"], strict=True):
        yield relative(name, losses[name].item(), float(value), floor, tolerance)
    if f"{case}.loss.total" in arrays:
        total, published = sum(loss.item() for loss in losses.values()), float(arrays[f"{case}.loss.total"])
        yield relative("loss.total", total, published, floor, tolerance)


def gradient_agreement(
    model: nn.Module,
    arrays: Arrays,
    own_parameters: Mapping[str, list[str]],
    key: str = "train.grad",
    tolerance: float = GRADIENT_TOLERANCE,
) -> Iterator[Agreement]:
    """The norm of every parameter's gradient, as relative errors.

    Args:
        model: after the backward pass.
        arrays: of the kit, with ``<key>.names`` and ``<key>.norms``.
        own_parameters: the model's parameters that hold a parameter of the kit.
        key: of the arrays.
        tolerance: of the errors.
    """
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    seen: set[str] = set()
    norms = arrays[f"{key}.norms"].tolist()
    # All of them are shares of one sum of squares, whose largest terms are rounded by more than this.
    floor = 1e-5 * max(norms)
    for name, norm in zip(arrays[f"{key}.names"].tolist(), norms, strict=True):
        ours = own_parameters[name]
        seen.update(ours)
        squares = sum(gradients[o].square().sum().item() for o in ours if o in gradients)
        yield relative(f"gradient of {' and '.join(ours)}", squares**0.5, norm, floor, tolerance)
    for name in sorted(set(gradients) - seen):
        # Nothing, where the published model has no such gradient.
        yield relative(f"gradient of {name}", gradients[name].norm().item(), 0.0, floor, tolerance)
