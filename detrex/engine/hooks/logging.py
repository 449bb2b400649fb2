"""Reports losses and other metrics of steps to the log, the writers and a progress bar."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from detrex.engine.hooks.hook import Hook, Training
from detrex.engine.log import METRICS_LOGGER
from detrex.engine.parallel import total_norm
from detrex.engine.writers import Writers
from detrex.report.series import main_names
from detrex.runtime.distributed import all_gather_objects, is_main_process
from detrex.runtime.progress import progress_bar

_MB = 2**20
_LOOKED_BACK = 50  # logged steps from which the time left is estimated
_REMEMBERED = 1800.0  # seconds over which the progress bar measures the speed

Measure = Callable[[Training], dict[str, float]]
"""Returns present metrics by name; called on all processes together."""


class TimeLeft:
    """Estimates how long a run will still take, from the time that many steps took.

    That includes saving and evaluation, which will be repeated; a single slow step has little influence.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=_LOOKED_BACK)

    def note(self, iteration: int) -> None:
        """Notes the time; call it before the first step, and after some steps from time to time."""
        self._seen.append((iteration, time.monotonic()))

    def left(self, max_iter: int) -> timedelta | None:
        """Time from the last :meth:`note` until ``max_iter`` steps are done; None before the second."""
        if len(self._seen) < 2:
            return None
        (first, start), (last, now) = self._seen[0], self._seen[-1]
        return timedelta(seconds=round((max_iter - last) * (now - start) / max(1, last - first)))


class LogHook(Hook):
    """Every ``period`` steps, reports means since the last report, over all processes, to log and writers.

    Losses stay on their device in between. Of skipped steps, only the times count.

    Args:
        period: in steps.
        writers: get the metrics; this hook opens and closes them.
        config: for the writers.
        measures: further metrics of the logged step for the writers. The log has only means.
    """

    def __init__(
        self,
        period: int,
        writers: Writers,
        config: Mapping[str, Any] | None = None,
        measures: Sequence[Measure] = (),
    ):
        if period < 1:
            raise ValueError(f"train.log_period must be at least 1 iteration, not {period}")
        self._period = period
        self._writers = writers
        self._config = config or {}
        self._measures = measures
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._log = logging.getLogger(METRICS_LOGGER)
        self._time = TimeLeft()

    def before_train(self, trainer: Training) -> None:
        if is_main_process():
            self._writers.open(trainer.iteration, self._config)
        self._time.note(trainer.iteration)

    def after_step(self, trainer: Training) -> None:
        for name, value in self._values(trainer).items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        if trainer.iteration % self._period and trainer.iteration != trainer.max_iter:
            return
        means = self._means()
        trainer.metrics = {**means, "lr": trainer.lr}
        for measure in self._measures:
            trainer.metrics.update(measure(trainer))
        self._sums, self._counts = {}, {}
        if is_main_process():
            self._writers.write(trainer.iteration, trainer.metrics)
            self._time.note(trainer.iteration)
            self._log.info(_line(trainer, self._time.left(trainer.max_iter)))

    def close(self) -> None:
        if is_main_process():
            self._writers.close()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {name: value.cpu() for name, value in self._sums.items()}, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])

    @staticmethod
    def _values(trainer: Training) -> dict[str, Tensor]:
        data_time, step_time = torch.tensor([trainer.data_time, trainer.step_time])
        times = {"data_time": data_time, "step_time": step_time}
        if not trainer.step_taken:
            return times
        losses = {name: loss.float() for name, loss in trainer.losses.items()}
        total = torch.stack(list(losses.values())).sum()
        return {"loss": total, **losses, "grad_norm": trainer.grad_norm.float(), **times}

    def _means(self) -> dict[str, float]:
        on_device = [name for name, value in self._sums.items() if value.device.type != "cpu"]
        moved = torch.stack([self._sums[n] for n in on_device]).tolist() if on_device else []
        read = dict(zip(on_device, moved, strict=True))
        sums = {n: (read[n] if n in read else float(v), self._counts[n]) for n, v in self._sums.items()}
        # As objects, because processes may have different losses (a batch without objects has fewer).
        by_process = all_gather_objects(sums)
        names = dict.fromkeys(name for process_sums in by_process for name in process_sums)
        means = {}
        for name in names:
            pairs = [process_sums[name] for process_sums in by_process if name in process_sums]
            means[name] = sum(total for total, _ in pairs) / sum(count for _, count in pairs)
        return means


class ProgressHook(Hook):
    """A progress bar with loss, learning rate, seconds per iteration and the time left, for terminals."""

    def __init__(self, console: Console):
        self._progress = progress_bar(console, shows_note=True, remembered=_REMEMBERED)
        self._task = self._progress.add_task("training", note="")

    def before_train(self, trainer: Training) -> None:
        self._progress.update(self._task, total=trainer.max_iter, completed=trainer.iteration)
        self._progress.start()

    def after_step(self, trainer: Training) -> None:
        metrics = trainer.metrics
        note = f"lr {metrics['lr']:.2g}  {metrics['step_time']:.3f} s/it" if metrics else ""
        if "loss" in metrics:  # missing if all steps were skipped
            note = f"loss {metrics['loss']:.3f}  {note}"
        self._progress.update(self._task, completed=trainer.iteration, note=note)

    def close(self) -> None:
        self._progress.stop()


def learning_rates(trainer: Training) -> dict[str, float]:
    """``lr/PART`` for each part of the model: its largest learning rate in the last step.

    A part is a direct child of the model, such as ``backbone``; parts that are not trained have no rate.
    """
    groups = trainer.optimizer.param_groups
    # Schedules multiply all rates by the same factor, and have advanced since the step.
    largest = max(group["initial_lr"] for group in groups) or 1.0
    rates = {
        id(parameter): trainer.lr * group["initial_lr"] / largest
        for group in groups
        for parameter in group["params"]
    }
    found: dict[str, float] = {}
    for part, parameters in _parts(trainer.module).items():
        if part_rates := [rates[id(p)] for p in parameters if id(p) in rates]:
            found[f"lr/{part}"] = max(part_rates)
    return found


def gradient_norms(norm_type: float) -> Measure:
    """``grad_norm/PART`` for each part of the model: the norm of its gradient before clipping.

    There are none after a skipped step.

    Args:
        norm_type: type of the trainer's norm.
    """

    def measure(trainer: Training) -> dict[str, float]:
        parts = {
            part: gradients
            for part, parameters in _parts(trainer.module).items()
            if (gradients := [p.grad for p in parameters if p.grad is not None])
        }
        if not parts or not trainer.step_taken:
            return {}
        norms = torch.stack([total_norm(g, norm_type).float() for g in parts.values()])
        # Clipping has scaled all gradients by the same factor; the total norm was computed before.
        after = torch.linalg.vector_norm(norms, norm_type)
        norms = norms * torch.where(after > 0, trainer.grad_norm.float() / after, 1.0)
        return {f"grad_norm/{part}": norm for part, norm in zip(parts, norms.tolist(), strict=True)}

    return measure


def memory(trainer: Training) -> dict[str, float]:
    """Memory in MiB, the largest value of all processes.

    ``max_memory_mb`` and ``reserved_memory_mb`` are the most that tensors took on a GPU and that PyTorch
    reserved there since the start; ``process_memory_mb`` is the main memory of a process (if the system tells
    it), without processes that load data.
    """
    usage: dict[str, float] = {}
    if trainer.device.type == "cuda":
        usage["max_memory_mb"] = torch.cuda.max_memory_allocated(trainer.device) / _MB
        usage["reserved_memory_mb"] = torch.cuda.max_memory_reserved(trainer.device) / _MB
    if (resident := _resident_bytes()) is not None:
        usage["process_memory_mb"] = resident / _MB
    by_process = all_gather_objects(usage)
    return {name: max(process_usage[name] for process_usage in by_process) for name in usage}


def _parts(model: nn.Module) -> dict[str, list[Tensor]]:
    """The parameters by the first part of their name."""
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        parts.setdefault(name.partition(".")[0], []).append(parameter)
    return parts


def _resident_bytes() -> int | None:
    if sys.platform != "linux":
        return None
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return None


def _line(trainer: Training, left: timedelta | None) -> str:
    """The metrics in one line; of ``loss_ce``, ``loss_ce_0``, ``loss_ce_dn`` and the like, only the first."""
    metrics = trainer.metrics
    names = [n for n in (*main_names(trainer.losses), "grad_norm") if n in metrics]
    parts = "  ".join(f"{n} {metrics[n]:.4g}" for n in names)
    loss = f"loss {metrics['loss']:.4f}  {parts}" if "loss" in metrics else "no step was taken"
    memory = f"  {metrics['max_memory_mb']:.0f} MB" if "max_memory_mb" in metrics else ""
    return (
        f"iteration {trainer.iteration}/{trainer.max_iter}  eta {'?' if left is None else left}  {loss}  "
        f"lr {metrics['lr']:.3g}  {metrics['step_time']:.3f} s/it  data {metrics['data_time']:.3f} s{memory}"
    )
