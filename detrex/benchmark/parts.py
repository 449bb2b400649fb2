"""Measures how the time of a run is divided among the parts of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer

from detrex.benchmark.timing import Clock, Mark

OTHER = "other"
BACKWARD = "backward"
OPTIMIZER = "optimizer"
PARTS = {
    "backbone": "backbone",
    "encoder": "encoder",
    "pixel_head": "pixel head",
    "denoising": "denoising",
    "decoder": "decoder",
    "criterion": "losses",
    "criterion.matcher": "matching",
    "postprocess": "post-processing",
}
"""Attributes of a detector, with the names of the time in them."""


class PartTimes:
    """Splits the time of a run by the innermost part of the model that is active.

    Parts that a model lacks are left out. Time outside all parts is ``other``: normalising and padding
    images, collating targets and, in training, the sum of losses. ``backward`` lasts from the end of the
    model's forward pass in training mode to the optimizer's step, so it includes clipping.
    """

    def __init__(self, clock: Clock):
        self._clock = clock
        self._at_work: list[str] = []
        self._begins: list[tuple[str, Mark]] = []  # the part that is active from each moment on

    def watch(self, model: nn.Module) -> None:
        """Follows the parts of ``model`` from now on; this cannot be undone."""
        for path, name in PARTS.items():
            owner_path, _, attribute = path.rpartition(".")
            owner = getattr(model, owner_path, None) if owner_path else model
            part = getattr(owner, attribute, None)
            if isinstance(part, nn.Module):
                part.register_forward_pre_hook(lambda *_, name=name: self._enter(name))
                part.register_forward_hook(lambda *_: self._leave())
            elif part is not None:
                setattr(owner, attribute, _Watched(part, partial(self._enter, name), self._leave))
        model.register_forward_hook(lambda module, *_: self._enter(BACKWARD) if module.training else None)

    def watch_optimizer(self, optimizer: Optimizer) -> None:
        """Follows the optimizer's steps from now on."""
        optimizer.register_step_pre_hook(lambda *_: self._go_on_with(OPTIMIZER))
        optimizer.register_step_post_hook(lambda *_: self._go_on_with(OTHER))

    def start(self) -> None:
        """Begins to measure a run."""
        self._begins.clear()
        self._go_on_with(OTHER)

    def stop(self) -> dict[str, float]:
        """Ends the run, and returns seconds by part, in the order in which parts were first active."""
        end = self._clock.mark()
        self._clock.wait()
        seconds: dict[str, float] = defaultdict(float)
        moments = [mark for _, mark in self._begins[1:]] + [end]
        for (name, begin), until in zip(self._begins, moments, strict=True):
            seconds[name] += self._clock.seconds(begin, until)
        rest = seconds.pop(OTHER)
        return {**seconds, OTHER: rest}

    def _enter(self, name: str) -> None:
        self._at_work.append(name)
        self._begins.append((name, self._clock.mark()))

    def _leave(self) -> None:
        self._at_work.pop()
        self._begins.append((self._at_work[-1], self._clock.mark()))

    def _go_on_with(self, name: str) -> None:
        """Notes that another part, outside the model, is active from now on."""
        self._at_work = [name]
        self._begins.append((name, self._clock.mark()))


class _Watched:
    """Stands for a part that is not a module, and so takes no hooks."""

    def __init__(self, part: Any, enter: Callable[[], None], leave: Callable[[], None]):
        self._part, self._enter, self._leave = part, enter, leave

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._enter()
        result = self._part(*args, **kwargs)
        self._leave()
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)
