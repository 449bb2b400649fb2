"""Learning-rate schedules with linear warm-up, stepped once per iteration.

A schedule is a factor on the optimizer's learning rates. All lengths are in iterations (configs may give them
in epochs, see :mod:`detrex.engine.lengths`). During the first ``warmup_iters`` iterations, the factor is also
multiplied by a value that rises linearly from ``warmup_factor`` to 1; with ``warmup_factor=1``, there is no
warm-up.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(optimizer: Optimizer, warmup_iters: int = 0, warmup_factor: float = 0.001) -> LambdaLR:
    """The constant factor 1."""
    return _scheduler(optimizer, lambda _: 1.0, warmup_iters, warmup_factor)


def multi_step(
    optimizer: Optimizer,
    milestones: Sequence[int],
    gamma: float = 0.1,
    warmup_iters: int = 0,
    warmup_factor: float = 0.001,
) -> LambdaLR:
    """The factor 1 before the first milestone, multiplied by ``gamma`` at each milestone.

    Raises:
        ValueError: the milestones are not positive and increasing.
    """
    milestones = list(milestones)
    if any(m <= 0 for m in milestones) or sorted(set(milestones)) != milestones:
        raise ValueError(f"scheduler.milestones must be positive and increasing iterations, not {milestones}")
    return _scheduler(
        optimizer,
        lambda iteration: gamma ** bisect_right(milestones, iteration),
        warmup_iters,
        warmup_factor,
    )


def cosine(
    optimizer: Optimizer,
    max_iter: int,
    final_factor: float = 0.0,
    warmup_iters: int = 0,
    warmup_factor: float = 0.001,
) -> LambdaLR:
    """Half a cosine from 1 to ``final_factor`` at ``max_iter`` (arXiv 1608.03983, without restarts)."""

    def factor(iteration: int) -> float:
        return final_factor + (1 - final_factor) * 0.5 * (
            1 + math.cos(math.pi * _progress(iteration, max_iter))
        )

    return _scheduler(optimizer, factor, warmup_iters, warmup_factor)


def poly(
    optimizer: Optimizer,
    max_iter: int,
    power: float = 0.9,
    final_factor: float = 0.0,
    warmup_iters: int = 0,
    warmup_factor: float = 0.001,
) -> LambdaLR:
    """``(1 - iteration / max_iter) ** power``, from 1 to ``final_factor``; usual in semantic segmentation."""

    def factor(iteration: int) -> float:
        return final_factor + (1 - final_factor) * (1 - _progress(iteration, max_iter)) ** power

    return _scheduler(optimizer, factor, warmup_iters, warmup_factor)


def _progress(iteration: int, max_iter: int) -> float:
    """Completed share of the run; the scheduler may be stepped once more after the last iteration."""
    return min(1.0, iteration / max(1, max_iter))


def _scheduler(
    optimizer: Optimizer, factor: Callable[[int], float], warmup_iters: int, warmup_factor: float
) -> LambdaLR:
    if warmup_iters < 0:
        raise ValueError(f"scheduler.warmup_iters must not be negative, but is {warmup_iters}")

    def with_warmup(iteration: int) -> float:
        if iteration >= warmup_iters:
            return factor(iteration)
        return factor(iteration) * (warmup_factor + (1 - warmup_factor) * iteration / warmup_iters)

    return LambdaLR(optimizer, with_warmup)
