"""Losses and other figures of training, to the log and the writers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detrex.engine.hooks.base import Hook
from detrex.engine.log import METRICS_LOGGER
from detrex.engine.loss_names import main_names
from detrex.engine.writers import Writers
from detrex.runtime.distributed import all_gather_objects, is_main_process

if TYPE_CHECKING:
    from detrex.engine.trainer import Trainer

Figures = Callable[["Trainer"], dict[str, float]]
"""Figures of this moment; called on all processes together."""


class LogHook(Hook):
    """Every ``period`` steps: means since the last time, over all processes, to the log and the writers.

    Losses stay on their device in between. Of steps that were left out only the times count.

    Args:
        period: in steps.
        writers: get the metrics; this hook opens and closes them.
        config: for the writers.
        figures: more to write, taken at the step that is logged. The log has only means.
    """

    def __init__(
        self,
        period: int,
        writers: Writers,
        config: Mapping[str, Any] | None = None,
        figures: Sequence[Figures] = (),
    ):
        if period < 1:
            raise ValueError(f"train.log_period must be at least 1 iteration, not {period}")
        self._period = period
        self._writers = writers
        self._config = config or {}
        self._figures = figures
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._log = logging.getLogger(METRICS_LOGGER)

    def before_train(self, trainer: Trainer) -> None:
        if is_main_process():
            self._writers.open(trainer.iteration, self._config)

    def after_step(self, trainer: Trainer) -> None:
        for name, value in self._values(trainer).items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        if trainer.iteration % self._period and trainer.iteration != trainer.max_iter:
            return
        means = self._means()
        trainer.metrics = {**means, "lr": trainer.lr}
        for figures in self._figures:
            trainer.metrics.update(figures(trainer))
        self._sums, self._counts = {}, {}
        if is_main_process():
            self._writers.write(trainer.iteration, trainer.metrics)
            self._log.info(_line(trainer))

    def close(self) -> None:
        if is_main_process():
            self._writers.close()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {name: value.cpu() for name, value in self._sums.items()}, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])

    @staticmethod
    def _values(trainer: Trainer) -> dict[str, Tensor]:
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
        own = {n: (read[n] if n in read else float(v), self._counts[n]) for n, v in self._sums.items()}
        # As objects, for processes may have met different losses (a batch without objects has fewer).
        everyone = all_gather_objects(own)
        names = dict.fromkeys(name for one in everyone for name in one)
        means = {}
        for name in names:
            pairs = [one[name] for one in everyone if name in one]
            means[name] = sum(total for total, _ in pairs) / sum(count for _, count in pairs)
        return means


def _line(trainer: Trainer) -> str:
    """The figures in one line; of losses like ``loss_ce``, ``loss_ce_0``, ``loss_ce_dn``, only the first."""
    metrics = trainer.metrics
    left = timedelta(seconds=round((trainer.max_iter - trainer.iteration) * metrics["step_time"]))
    names = [n for n in (*main_names(trainer.losses), "grad_norm") if n in metrics]
    parts = "  ".join(f"{n} {metrics[n]:.4g}" for n in names)
    loss = f"loss {metrics['loss']:.4f}  {parts}" if "loss" in metrics else "no step was taken"
    memory = f"  {metrics['max_memory_mb']:.0f} MB" if "max_memory_mb" in metrics else ""
    return (
        f"iteration {trainer.iteration}/{trainer.max_iter}  eta {left}  {loss}  "
        f"lr {metrics['lr']:.3g}  {metrics['step_time']:.3f} s/it  data {metrics['data_time']:.3f} s{memory}"
    )
