"""The training loop."""

from __future__ import annotations

import logging
import multiprocessing
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from detrex.checkpoint import Checkpoint, CheckpointError
from detrex.engine.ema import WeightAverage, restore_average
from detrex.engine.hooks import Hook
from detrex.engine.nonfinite import KeptBuffers, MicroBatch, NonFiniteGuard
from detrex.engine.parallel import load_optimizer, total_norm, whole
from detrex.runtime import interruption
from detrex.runtime.device import autocast, is_scaled
from detrex.runtime.distributed import all_gather_objects, barrier, mean_over_processes, rank, world_size
from detrex.runtime.random_state import preserved_random_state, random_state, set_random_state
from detrex.runtime.waiting import watched
from detrex.structures import Sample

logger = logging.getLogger(__name__)


class Trainer:
    """Takes ``max_iter`` optimizer steps and calls hooks around them.

    A step uses the mean gradient of ``accumulation`` micro-batches, each of which is a batch of the loader. A
    loss is divided by the number of objects in its micro-batch, so images in a micro-batch with few objects
    count a little more than they would in one large batch.

    If the loss or gradient of a step is not finite on one process, all processes skip it without a trace in
    the model; it still counts as an iteration, so that the schedule and the length of the run do not change.

    Args:
        model: on its device, wrapped for distributed training if need be. It maps a list of samples to a
            dict of weighted losses, which are summed.
        loader: returns endless batches. If it has ``state_dict`` and ``load_state_dict``, a resumed run sees
            the batches that would have followed.
        optimizer: over the model's parameters.
        scheduler: stepped once per optimizer step.
        max_iter: optimizer steps of the whole run, including those before a resume.
        output_dir: for a report if the loss is not finite.
        amp: ``off``, ``bf16`` or ``fp16`` (with loss scaling) for the forward pass.
        max_norm: the gradient of the whole model is scaled down to this norm; None for no clipping.
        norm_type: of that norm.
        accumulation: micro-batches per step.
        max_skipped_steps: how many steps in a row may be skipped because the loss or gradient is not finite.
            In fp16, gradients that are too large for the scale of the loss do not count: the scale is
                lowered.
        average: a moving average of the weights, updated after every step that was taken.
        hooks: called in this order.

    Raises:
        ValueError: ``max_norm`` is not above 0, which would stop or reverse training; ``accumulation`` is
            below 1 or ``max_skipped_steps`` below 0.

    Attributes:
        model: as given; ``module`` is the same without its distributed wrapper.
        iteration: steps done.
        average: as given, or None.
        step_taken: whether the weights changed in the last step.
        stopping: whether a process was asked to stop; equal on all processes.
        losses: of the last step by name, averaged over its micro-batches, detached, on the
            model's device.
        grad_norm: norm of the last step's gradient before clipping, a tensor on the model's device.
        lr: the largest learning rate in the last step.
        data_time, step_time: seconds that the last step waited for data, and took in total.
        metrics: the metrics that were logged last.
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
        accumulation: int = 1,
        max_skipped_steps: int = 0,
        average: WeightAverage | None = None,
        hooks: Sequence[Hook] = (),
    ):
        if max_norm is not None and max_norm <= 0:
            raise ValueError(
                f"train.clip_grad.max_norm must be above 0, or null for no clipping, not {max_norm}"
            )
        if accumulation < 1:
            raise ValueError(
                f"train.accumulation must be at least 1 micro-batch per step, not {accumulation}"
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
        self.average = average
        self.iteration = 0
        self.step_taken = self.stopping = False
        self.losses: dict[str, Tensor] = {}
        self.grad_norm = torch.zeros((), device=self.device)
        self.lr = self.data_time = self.step_time = 0.0
        self.metrics: dict[str, float] = {}
        self._amp = amp
        self._max_norm = max_norm
        self._norm_type = norm_type
        self._accumulation = accumulation
        self._guard = NonFiniteGuard(self.output_dir / "nonfinite", max_skipped_steps)
        self._buffers = KeptBuffers(self.module)
        self._random_state: dict[str, Any] | None = None
        self._started_at = 0
        self._before_step: dict[str, Any] | None = None  # set while a step is not complete
        self._skipped_before = 0
        self._updating = False

    def train(self) -> None:
        """Runs until ``max_iter`` steps are done.

        After an error, or a request to stop (see :mod:`detrex.runtime.interruption`), hooks can save the
        state after the last complete step.

        Raises:
            NonFiniteLossError: the loss or the gradient was not finite in too many steps in a row; none of
                them was taken, and a report about the last one was written to ``output_dir/nonfinite``.
            RuntimeError: the loader ended.
            Interrupted: this or, in a step, another process was asked to stop.
        """
        self._started_at = self.iteration
        self.stopping = False
        with interruption.listening():
            try:
                with interruption.deferred():
                    self._run()
                self._call("after_train")
            except (Exception, interruption.Interrupted) as error:
                with interruption.noted():
                    self._fail(error)
                if interruption.requested() and not isinstance(error, interruption.Interrupted):
                    # For example, because another process has already ended.
                    logger.warning("an error after the request to stop: %s: %s", type(error).__name__, error)
                    raise interruption.Interrupted from error
                raise
            finally:
                for hook in self.hooks:
                    hook.close()
                if self.stopping:
                    barrier()  # launchers end the other processes as soon as one has ended

    def _run(self) -> None:
        self.model.train()
        self._call("before_train")
        batches = watched(iter(self.loader), "training data")
        if self._random_state is not None:
            # Only now, because making an iterator over worker processes draws a random number.
            set_random_state(self._random_state)
        while self.iteration < self.max_iter:
            self._call("before_step")
            self._step(batches)
            self._call("after_step")
            if self.stopping:
                raise interruption.Interrupted

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, interruption.Interrupted):
            logger.info(
                "stopped by a signal after iteration %d; repeat the command with --resume to go on (code %d)",
                self.iteration,
                interruption.EXIT_INTERRUPTED,
            )
            for worker in multiprocessing.active_children():
                worker.terminate()  # otherwise, a stuck worker would be waited for
        if self.iteration == self._started_at:
            return  # there is no complete step to save
        if self._updating:
            logger.error("the weights were being changed; the last checkpoint is what there is to go on from")
            return
        if self._before_step is not None:
            self._buffers.restore()
            self._guard.skipped = self._skipped_before
        for hook in self.hooks:
            try:
                hook.after_failure(self)
            except Exception:  # the first error must stay visible
                logger.exception("%s failed while the run was being ended", type(hook).__name__)

    def weights(self) -> dict[str, Tensor]:
        """The state dict of the model; call it on all processes; it is complete on the main one."""
        return whole(self.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The state without the weights and their average, equal on every process; call it on all of them."""
        process = {
            **(self._before_step or self._position()),
            "hooks": {type(hook).__name__: hook.state_dict() for hook in self.hooks},
        }
        return {
            "iteration": self.iteration,
            "optimizer": whole(self.optimizer.state_dict()),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped_steps": self._guard.skipped,
            "average_updates": 0 if self.average is None else self.average.updates,
            "processes": all_gather_objects(process),
        }

    def _position(self) -> dict[str, Any]:
        """The state that determines the next step besides weights: random numbers and place in the data."""
        loader = self.loader.state_dict() if hasattr(self.loader, "state_dict") else None
        return {"random": random_state(), "loader": loader}

    def load_state(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint whose weights are already in the model.

        Hooks find their state by the name of their class; a hook, or an average of the weights, that the run
        did not have starts anew.

        Raises:
            CheckpointError: the state belongs to another model, optimizer or schedule.
        """
        try:
            self._load_state(checkpoint.state, checkpoint)
        except CheckpointError:
            raise
        except (LookupError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{checkpoint.path}: its training state is damaged or does not fit this run: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _load_state(self, state: dict[str, Any], checkpoint: Checkpoint) -> None:
        load_optimizer(self.optimizer, state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self._follow_schedule()
        if state["scaler"]:  # empty if the run was not in fp16 so far
            self.scaler.load_state_dict(state["scaler"])
        self._guard.skipped = int(state["skipped_steps"])
        self.iteration = int(state["iteration"])
        if self.iteration != checkpoint.iteration:
            raise ValueError(f"it is of iteration {self.iteration}, the weights of {checkpoint.iteration}")
        self._load_average(checkpoint)
        processes = state["processes"]
        exact = len(processes) == world_size()
        if not exact:
            logger.warning(
                "%s was written by %d processes, this run has %d: random numbers and the order of images "
                "will not be those of the uninterrupted run",
                checkpoint.path,
                len(processes),
                world_size(),
            )
        self._load_process(processes[min(rank(), len(processes) - 1)], exact)

    def _follow_schedule(self) -> None:
        """Takes the learning rates of the next step from this run's schedule, not from the previous run's."""
        if isinstance(self.scheduler, LambdaLR):
            rates = zip(self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)
            for group, (base, factor) in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = base * factor(self.scheduler.last_epoch)

    def _load_process(self, state: dict[str, Any], exact: bool) -> None:
        if state["loader"] is not None and hasattr(self.loader, "load_state_dict"):
            self.loader.load_state_dict(state["loader"])
        else:
            logger.warning("the training loader has no state to restore; the order of images starts anew")
        if exact:
            with preserved_random_state():  # to find damage now, not at the first step
                set_random_state(state["random"])
            self._random_state = state["random"]
        for hook in self.hooks:
            if type(hook).__name__ in state["hooks"]:
                hook.load_state_dict(state["hooks"][type(hook).__name__])

    def _load_average(self, checkpoint: Checkpoint) -> None:
        if self.average is None:
            return
        if checkpoint.average is None:
            logger.warning("%s has no averaged weights; their average starts anew", checkpoint.path)
        else:
            restore_average(self.average, checkpoint)

    def _step(self, batches: Iterator[list[Sample]]) -> None:
        start = time.perf_counter()
        self.data_time = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        self._buffers.keep()
        self._before_step, self._skipped_before = self._position(), self._guard.skipped
        micro_batches = [
            self._accumulate(batches, last=k == self._accumulation) for k in range(1, self._accumulation + 1)
        ]
        self.losses = _mean_losses(micro_batches)
        self.scaler.unscale_(self.optimizer)
        self.grad_norm = self._clip()
        self.lr = max(group["lr"] for group in self.optimizer.param_groups)
        self.step_taken = self._may_step(micro_batches)
        self._updating = True
        if self.step_taken:
            # The scaler has seen the gradients before clipping, and would also skip non-finite ones.
            self.scaler.step(self.optimizer)
            if self.average is not None:
                self.average.update()
        self.scaler.update()
        self._step_scheduler()
        self.iteration += 1
        self._before_step, self._updating = None, False
        self.step_time = time.perf_counter() - start

    def _accumulate(self, batches: Iterator[list[Sample]], last: bool) -> MicroBatch:
        """Adds the gradient of one micro-batch; processes exchange gradients only with the last one."""
        start = time.perf_counter()
        samples = self._next(batches)
        self.data_time += time.perf_counter() - start
        with self._synchronised(last):
            with autocast(self._amp, self.device):
                losses = self.model(samples)
            if not losses:
                raise RuntimeError("the model returned no losses; does it have losses with weights?")
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
            self.scaler.scale(total / self._accumulation).backward()
        detached = {name: loss.detach() for name, loss in losses.items()}
        return MicroBatch(samples, detached, total.detach().isfinite())

    def _synchronised(self, last: bool) -> AbstractContextManager:
        if last or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def _step_scheduler(self) -> None:
        if self.step_taken:
            self.scheduler.step()
            return
        with warnings.catch_warnings():
            # In the very first step, PyTorch would warn that the optimizer was not stepped.
            warnings.filterwarnings("ignore", ".*lr_scheduler.step.*before.*optimizer.step", UserWarning)
            self.scheduler.step()

    def _next(self, batches) -> list[Sample]:
        try:
            return next(batches)
        except StopIteration:
            done = f"{self.iteration} of {self.max_iter}"
            raise RuntimeError(f"the training loader must be endless, but ended after {done} steps") from None

    def _clip(self) -> Tensor:
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        norm = total_norm([p.grad for p in parameters if p.grad is not None], self._norm_type)
        if self._max_norm is not None:
            clip_grads_with_norm_(parameters, self._max_norm, norm)
        return norm

    def _may_step(self, micro_batches: Sequence[MicroBatch]) -> bool:
        """Whether all values are finite on all processes; processes also agree on skipping and stopping.

        It takes one transfer of three numbers, after the backward pass is queued and before weights change.
        """
        loss_finite = torch.stack([micro_batch.finite for micro_batch in micro_batches]).all()
        no_stop = torch.full_like(loss_finite, not interruption.requested())
        flags = torch.stack([loss_finite, self.grad_norm.isfinite(), no_stop]).float()
        losses_finite, gradients_finite, no_stop = (mean_over_processes(flags) == 1).tolist()
        self.stopping = not no_stop
        if losses_finite and gradients_finite:
            self._guard.skipped = 0
            return True
        self._buffers.restore()
        # Gradients too large for fp16 are usual: the scale of the loss is lowered until they fit.
        overflow = losses_finite and self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if not overflow:
            self._guard.skip(self, "gradient" if losses_finite else "loss", micro_batches)
        return False

    def _call(self, method: str) -> None:
        for hook in self.hooks:
            getattr(hook, method)(self)


def _mean_losses(micro_batches: Sequence[MicroBatch]) -> dict[str, Tensor]:
    """The mean of each loss over micro-batches; a loss that a micro-batch lacks counts as zero there."""
    sums: dict[str, Tensor] = {}
    for micro_batch in micro_batches:
        for name, loss in micro_batch.losses.items():
            sums[name] = sums[name] + loss if name in sums else loss
    return {name: total / len(micro_batches) for name, total in sums.items()}
