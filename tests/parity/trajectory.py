"""A training run of Mask DINO against one of a parity kit: settings, losses and changes, step by step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import repeat

import mask_dino
import numpy as np
import torch
from agreement import LOSS_TOLERANCE, Agreement, Arrays, relative
from omegaconf import DictConfig
from torch import Tensor, nn

from detrex.checkpoint.published import to_published
from detrex.config import instantiate
from detrex.engine import Hook, Trainer

# Settings are the same numbers, multiplied in another order.
SETTING_TOLERANCE = 1e-9
CHANGE_TOLERANCE = 1e-3
# From the fourth step on, rounding may change which query is matched with an object, and single losses and
# changes with it, but hardly their sums. The kit's runs from weights perturbed by 1e-7 show how far numbers
# are apart then; they are few, hence the factor, and floors of a few times the most in any of them.
EXACT_STEPS, NOISE_FACTOR = 3, 3.0
LATER_LOSS_TOLERANCE, LATER_CHANGE_TOLERANCE = 0.1, 0.02
# Single elements are compared in units of the longest way that Adam can have gone, the sum of the learning
# rates. Their gradients may be near 0, and Adam divides by their size; perturbed runs are as far apart.
FIRST_TOLERANCE, FIRST_TOLERANCE_LATER = 1e-2, 5e-2


class Recorder(Hook):
    """Notes what a trainer does in each step, with parameters under their published names."""

    def __init__(self) -> None:
        self.learning_rates: list[dict[str, float]] = []
        self.weight_decays: list[dict[str, float]] = []
        self.losses: list[dict[str, float]] = []
        self.norms: list[float] = []
        self.changes: list[dict[str, Tensor]] = []

    def before_train(self, trainer: Trainer) -> None:
        self.initial = {name: tensor.clone() for name, tensor in trainer.module.state_dict().items()}

    def before_step(self, trainer: Trainer) -> None:
        self.learning_rates.append(self._settings(trainer, "lr"))
        self.weight_decays.append(self._settings(trainer, "weight_decay"))

    def after_step(self, trainer: Trainer) -> None:
        self.losses.append({name: loss.item() for name, loss in trainer.losses.items()})
        self.norms.append(trainer.grad_norm.item())
        state = trainer.module.state_dict()
        changes = {name: state[name] - value for name, value in self.initial.items()}
        # Two numbers that sum up a tensor, and its beginning, as the kit has them.
        self.changes.append(
            {
                name: torch.cat([change.double().norm()[None], change.flatten()[:8].double()])
                for name, change in to_published(changes, trainer.module).items()
            }
        )

    def _settings(self, trainer: Trainer, key: str) -> dict[str, float]:
        """The optimizer's ``key`` for every parameter."""
        by_parameter = {p: group[key] for group in trainer.optimizer.param_groups for p in group["params"]}
        filled = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in self.initial.items()}
        for name, parameter in trainer.module.named_parameters():
            filled[name].fill_(by_parameter.get(parameter, 0.0))
        published = to_published(filled, trainer.module)
        return {name: value.flatten()[0].item() for name, value in published.items()}


def trajectory_agreement(model: nn.Module, config: DictConfig, arrays: Arrays) -> Iterator[Agreement]:
    """Settings of every parameter, losses, gradient norms and changes of parameters in each step."""
    steps, names = len(arrays["traj.loss.total"]), arrays["traj.param.names"].tolist()
    recorder = Recorder()
    optimizer = instantiate(config.optimizer, model=model)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model,
            repeat(mask_dino.training_samples(arrays)),
            optimizer,
            instantiate(config.scheduler, optimizer=optimizer),
            max_iter=steps,
            output_dir=folder,
            hooks=[recorder],
            **config.train.clip_grad,
        ).train()
    for i, name in enumerate(names):
        ours, published = recorder.weight_decays[0][name], float(arrays["traj.param.weight_decay"][i])
        yield relative(f"weight decay of {name}", ours, published, 1e-12, SETTING_TOLERANCE)
    still = {name for name in names if recorder.changes[-1][name][0] == 0}
    differing = still ^ set(arrays["traj.no_gradient"].tolist())
    yield Agreement("parameters that do not change", len(differing), 1.0, 0.0)
    for step in range(steps):
        yield from _step_agreement(step, recorder, names, arrays)


def _step_agreement(step: int, recorder: Recorder, names: list[str], arrays: Arrays) -> Iterator[Agreement]:
    at = f"step {step + 1}: "
    for name, published in zip(names, arrays["traj.param.lr"][step], strict=True):
        ours = recorder.learning_rates[step][name]
        yield relative(f"{at}learning rate of {name}", ours, float(published), 1e-12, SETTING_TOLERANCE)
    losses = recorder.losses[step]
    for name, key, ours in (
        ("total loss", "loss.total", sum(losses.values())),
        ("gradient norm", "grad.norm", recorder.norms[step]),
    ):
        published, noisy = float(arrays[f"traj.{key}"][step]), arrays[f"traj.noise.{key}"][:, step]
        yield _noisy(f"{at}{name}", ours, published, noisy, 0.0, LOSS_TOLERANCE, step)
    if set(losses) != set(arrays["traj.loss.names"].tolist()):
        raise ValueError(f"names of losses differ: {sorted(set(losses) ^ set(arrays['traj.loss.names']))}")
    for name, published, noisy in zip(
        arrays["traj.loss.names"].tolist(),
        arrays["traj.loss.values"][step],
        arrays["traj.noise.loss.values"][:, step].T,
        strict=True,
    ):
        tolerance = LOSS_TOLERANCE if step < EXACT_STEPS else LATER_LOSS_TOLERANCE
        yield _noisy(f"{at}{name}", losses[name], float(published), noisy, 1e-3, tolerance, step)
    longest = arrays["traj.param.lr"][: step + 1].sum(0)
    for i, name in enumerate(names):
        norm, *first = recorder.changes[step][name].tolist()
        published, noisy = arrays["traj.change.norms"][step, i], arrays["traj.noise.change.norms"][:, step, i]
        tolerance = CHANGE_TOLERANCE if step < EXACT_STEPS else LATER_CHANGE_TOLERANCE
        yield _noisy(f"{at}change of {name}", norm, float(published), noisy, 0.0, tolerance, step)
        apart = np.abs(np.array(first) - arrays["traj.change.first"][step, i, : len(first)]).max()
        tolerance = FIRST_TOLERANCE if step < EXACT_STEPS else FIRST_TOLERANCE_LATER
        yield Agreement(f"{at}first of the change of {name}", float(apart), float(longest[i]), tolerance)


def _noisy(
    name: str, ours: float, published: float, noisy: np.ndarray, floor: float, tolerance: float, step: int
) -> Agreement:
    """Like :func:`relative`, but from the step on where published runs differ, no closer than these are."""
    agreement = relative(name, ours, published, floor, tolerance)
    if step >= EXACT_STEPS:
        apart = NOISE_FACTOR * float(np.abs(noisy - published).max())
        agreement.tolerance = max(tolerance, apart / agreement.spread)
    return agreement
