"""The training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detrex.checkpoint import Checkpoint, CheckpointError
from detrex.engine.hooks import Hook
from detrex.engine.nonfinite import NonFiniteLossError, save_nonfinite_report
from detrex.engine.precision import autocast, is_scaled
from detrex.engine.random_state import random_state, set_random_state
from detrex.structures import Sample
from detrex.utils.distributed import all_gather_objects, mean_over_processes, rank, world_size

_SHOWN_LOSSES = 4  # of those that are not finite; the report has all

logger = logging.getLogger(__name__)


class Trainer:
    """Takes ``max_iter`` optimizer steps and calls hooks around them.

    Args:
        model: on its device, wrapped for distributed training if need be. Maps a list of samples to a
            dict of weighted losses, which are summed.
        loader: gives batches without end. With ``state_dict`` and ``load_state_dict`` a resumed run sees
            the batches that would have come.
        optimizer: over the model's parameters.
        scheduler: stepped once per iteration.
        max_iter: steps of the whole run, those before a resume included.
        output_dir: where a report goes if the loss is not finite.
        amp: ``off``, ``bf16`` or ``fp16`` (with loss scaling) for the forward pass.
        max_norm: the gradient of the whole model is scaled down to this norm; None for no clipping.
        norm_type: of that norm.
        hooks: called in this order.

    Raises:
        ValueError: ``max_norm`` is not above 0, which would stop or reverse training.

    Attributes:
        model: as given; ``module`` is the same without its distributed wrapper.
        iteration: steps done.
        losses: parts of the last step's loss by name, detached, on the model's device.
        grad_norm: norm of the last step's gradient before clipping, a tensor on the model's device.
        lr: the largest learning rate in the last step.
        data_time, step_time: seconds that the last step waited for data, and took in all.
        metrics: the figures logged last.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[list[Sample]],
        optimizer: Optimizer,
        scheduler: LRScheduler,
        *,
        max_iter: int,
        output_dir: str | Path,
        amp: str = "off",
        max_norm: float | None = None,
        norm_type: float = 2.0,
        hooks: Sequence[Hook] = (),
    ):
        if max_norm is not None and max_norm <= 0:
            raise ValueError(
                f"train.clip_grad.max_norm must be above 0, or null for no clipping, not {max_norm}"
            )
        self.model = model
        self.module: nn.Module = (
            model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        )
        self.loader = loader
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.max_iter = max_iter
        self.output_dir = Path(output_dir)
        self.hooks = list(hooks)
        self.device = next(self.module.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=is_scaled(amp))
        self.iteration = 0
        self.losses: dict[str, Tensor] = {}
        self.grad_norm = torch.zeros((), device=self.device)
        self.lr = self.data_time = self.step_time = 0.0
        self.metrics: dict[str, float] = {}
        self._amp = amp
        self._max_norm = max_norm
        self._norm_type = norm_type
        self._random_state: dict[str, Any] | None = None

    def train(self) -> None:
        """Runs until ``max_iter`` steps are done.

        Raises:
            NonFiniteLossError: the loss or the gradient is not finite on any process; no step was taken with
                it, and a report was written to ``output_dir/nonfinite``.
            RuntimeError: the loader came to its end.
        """
        self.model.train()
        try:
            self._call("before_train")
            batches = iter(self.loader)
            if self._random_state is not None:
                # Only now, for making an iterator over worker processes draws a random number.
                set_random_state(self._random_state)
            while self.iteration < self.max_iter:
                self._call("before_step")
                self._step(batches)
                self.iteration += 1
                self._call("after_step")
            self._call("after_train")
        finally:
            for hook in self.hooks:
                hook.close()

    def state_dict(self) -> dict[str, Any]:
        """All but the weights, the same on every process; to be called on all of them together."""
        own = {
            "random": random_state(),
            "loader": self.loader.state_dict() if hasattr(self.loader, "state_dict") else None,
            "hooks": [hook.state_dict() for hook in self.hooks],
        }
        return {
            "iteration": self.iteration,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "processes": all_gather_objects(own),
        }

    def load_state(self, checkpoint: Checkpoint) -> None:
        """Goes on where a checkpoint was written; its weights are already in the model.

        Raises:
            CheckpointError: the state is of another model, optimizer or schedule.
        """
        state = checkpoint.state
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            if state["scaler"]:  # empty if the run was not in fp16 so far
                self.scaler.load_state_dict(state["scaler"])
            self.iteration = state["iteration"]
            processes = state["processes"]
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{checkpoint.path}: its training state does not fit this run: {error}"
            ) from error
        if len(processes) != world_size():
            logger.warning(
                "%s was written by %d processes, this run has %d: random numbers and the order of images "
                "will not be those of the uninterrupted run",
                checkpoint.path,
                len(processes),
                world_size(),
            )
        self._load_own(processes[min(rank(), len(processes) - 1)], exact=len(processes) == world_size())

    def _load_own(self, own: dict[str, Any], exact: bool) -> None:
        if own["loader"] is not None and hasattr(self.loader, "load_state_dict"):
            self.loader.load_state_dict(own["loader"])
        else:
            logger.warning("the training loader has no state to restore; the order of images starts anew")
        if exact:
            self._random_state = own["random"]
        for hook, state in zip(self.hooks, own["hooks"], strict=False):
            hook.load_state_dict(state)

    def _step(self, batches) -> None:
        start = time.perf_counter()
        samples = self._next(batches)
        self.data_time = time.perf_counter() - start
        with autocast(self._amp, self.device):
            losses = self.model(samples)
        if not losses:
            raise RuntimeError("the model returned no losses; does it have losses with weights?")
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        self.losses = {name: loss.detach() for name, loss in losses.items()}
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        self.grad_norm = self._clip()
        self._check_finite(total, samples)
        self.lr = max(group["lr"] for group in self.optimizer.param_groups)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.step_time = time.perf_counter() - start

    def _next(self, batches) -> list[Sample]:
        try:
            return next(batches)
        except StopIteration:
            done = f"{self.iteration} of {self.max_iter}"
            raise RuntimeError(f"the training loader must be endless, but ended after {done} steps") from None

    def _clip(self) -> Tensor:
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters], self._norm_type)
        if self._max_norm is not None:
            clip_grads_with_norm_(parameters, self._max_norm, norm)
        return norm

    def _check_finite(self, total: Tensor, samples: list[Sample]) -> None:
        """One transfer of one number, after the whole backward pass is queued and before weights change."""
        finite = total.detach().isfinite()
        if (
            not self.scaler.is_enabled()
        ):  # with loss scaling an overflow is usual: the scaler leaves the step out
            finite = finite & self.grad_norm.isfinite()
        # All processes stop together, else the others would wait for ever.
        if mean_over_processes(finite.float()).item() == 1:
            return
        path = save_nonfinite_report(self.output_dir / "nonfinite", self, samples)
        found = all_gather_objects(None if finite.item() else self._describe(samples))
        what = "gradient" if total.isfinite() else "loss"
        raise NonFiniteLossError(
            f"the {what} is not finite at iteration {self.iteration + 1}: {'; '.join(filter(None, found))}. "
            f"Batch and weights are in {path.with_suffix('.pt')}, a summary in {path}. "
            "Try a lower learning rate, a longer warm-up, train.amp=bf16 or off, or look at these images."
        )

    def _describe(self, samples: list[Sample]) -> str:
        losses = {name: float(value) for name, value in self.losses.items()}
        worst = sorted(losses, key=lambda name: (math.isfinite(losses[name]), -abs(losses[name])))
        parts = ", ".join(f"{name} {losses[name]:g}" for name in worst[:_SHOWN_LOSSES])
        more = f" and {len(worst) - _SHOWN_LOSSES} more" if len(worst) > _SHOWN_LOSSES else ""
        images = dict.fromkeys(str(s.get("file_name") or s.get("image_id", "?")) for s in samples)
        return f"{parts}{more} (images {', '.join(images)})"

    def _call(self, method: str) -> None:
        for hook in self.hooks:
            getattr(hook, method)(self)
