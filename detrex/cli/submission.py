"""Submits training as a job of Slurm, or as local processes in its place, with submitit."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig

from detrex.cli.train import main
from detrex.engine.launch import launch
from detrex.runtime import interruption

_LOG_LEVEL = "SUBMITIT_LOG_LEVEL"
_MAX_RESTARTS = 1000  # after time-outs; submitit would stop after 3


@dataclass(frozen=True)
class TrainingJob:
    """One process of a run, which submitit calls in as many tasks as processes train together.

    Before its time is over, the job gets SIGUSR2: the run then saves a checkpoint, the job returns to the
        queue,
    and continues from the checkpoint when it starts again. On SIGTERM, with which Slurm announces a
    preemption (and ``scancel`` the end), the run also saves a checkpoint; then Slurm decides whether the job
    starts again.

    Attributes:
        config, eval_only, resume, overwrite, debug: see :func:`detrex.cli.train.main`.
    """

    config: DictConfig
    eval_only: bool = False
    resume: bool = False
    overwrite: bool = False
    debug: bool = False

    def __call__(self) -> None:
        """Joins the other tasks and trains.

        Raises:
            SystemExit: the run failed, or was stopped by SIGTERM.
        """
        from submitit.helpers import TorchDistributedEnvironment

        # Each process sees all GPUs of its machine and takes its own by its number.
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        restarted = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
        arguments = (
            self.config,
            self.eval_only,
            self.resume or (restarted and not self.eval_only),
            self.overwrite,
            self.debug,
        )
        with interruption.listening(), _saved_before_requeueing():
            launch(main, arguments, timeout=self.config.train.process_timeout)

    def checkpoint(self) -> Any:
        """The job that submitit puts into the queue in place of this one."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(replace(self, resume=not self.eval_only))


def submit(
    job: TrainingJob,
    executor: str = "slurm",
    *,
    num_machines: int = 1,
    num_gpus: int = 1,
    cpus_per_gpu: int = 8,
    minutes: int = 24 * 60,
    signal_delay: int = 120,
    options: Mapping[str, str] | None = None,
) -> Any:
    """Submits a job to the batch system; its logs and submitit's files go to ``output_dir/submitit``.

    Args:
        job: the job to run.
        executor: ``slurm``, or ``local`` for processes on this machine.
        num_machines: number of machines.
        num_gpus: processes on each machine: one per GPU, or on the CPU with ``train.device=cpu``.
        cpus_per_gpu: cores for each process and the workers of its data loaders.
        minutes: how long the job may run before it returns to the queue.
        signal_delay: seconds before that limit in which it has to finish a step and save a checkpoint.
        options: of ``sbatch``, such as ``partition``.

    Returns:
        submitit's job.

    Raises:
        ImportError: submitit is not installed.
        ValueError: there is no such executor, or it cannot fulfil the request.
    """
    submitit = _imported_submitit()
    if executor not in ("slurm", "local"):
        raise ValueError(f"--executor must be slurm or local, not {executor!r}")
    if executor == "slurm" and shutil.which("srun") is None:
        raise ValueError("there is no Slurm on this machine (no srun); --executor local runs the job here")
    train = job.config.train
    folder = Path(train.output_dir).resolve() / "submitit"
    restarts = {f"{executor}_max_num_timeout": _MAX_RESTARTS}
    queue = submitit.AutoExecutor(folder=folder, cluster=executor, **restarts)
    queue.update_parameters(
        name=folder.parent.name,
        nodes=num_machines,
        tasks_per_node=num_gpus,
        gpus_per_node=0 if train.device == "cpu" else num_gpus,
        cpus_per_task=cpus_per_gpu,
        timeout_min=minutes,
        slurm_signal_delay_s=signal_delay,
        slurm_additional_parameters=dict(options or {}),
    )
    return queue.submit(job)


def _imported_submitit() -> ModuleType:
    """The package, prevented from setting up logging on import, which would close all existing handlers."""
    before = os.environ.get(_LOG_LEVEL)
    os.environ[_LOG_LEVEL] = "NOCONFIG"
    try:
        import submitit
    except ImportError as error:
        raise ImportError("submitit is not installed: pip install 'detrex-maskdino[submit]'") from error
    finally:  # the processes of the job inherit the environment, and write submitit's messages to their logs
        if before is None:
            del os.environ[_LOG_LEVEL]
        else:
            os.environ[_LOG_LEVEL] = before
    return submitit


@contextmanager
def _saved_before_requeueing() -> Iterator[None]:
    """Makes SIGUSR2 first end training with a checkpoint, and only then act as submitit wants."""
    requeue = signal.getsignal(signal.SIGUSR2)
    process = os.getpid()
    asked = False

    def handle(_number: int, _frame: Any) -> None:
        nonlocal asked
        if os.getpid() == process:  # otherwise, it is a loader's worker, which has inherited this
            asked = True
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGUSR2, handle)
    try:
        yield
    except interruption.Interrupted:
        if not asked or not callable(requeue):
            raise
        requeue(signal.SIGUSR2, None)
