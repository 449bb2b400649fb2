"""Starts the processes of a run."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detrex.runtime import interruption
from detrex.runtime.heartbeat import heartbeat
from detrex.runtime.processes import clean_start_method

_POLLED_EVERY = 0.2  # seconds

logger = logging.getLogger(__name__)


def launch(
    main: Callable[..., Any],
    args: tuple = (),
    *,
    num_gpus: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    timeout: float = 0.0,
) -> None:
    """Calls ``main(*args)`` in all processes that are to train together, and waits for them.

    Under ``torchrun``, the process is already one of them: it joins the others, and the numbers are not used.

    Args:
        main: a function that can be imported by name.
        args: its arguments; they are pickled if there are several processes.
        num_gpus: processes on this machine: one per GPU (NCCL) or, without CUDA, on the CPU (gloo).
        num_machines: number of machines, which are started with the same arguments except ``machine_rank``.
        machine_rank: number of this machine, from 0.
        dist_url: ``tcp://HOST:PORT`` of machine 0; ``auto`` finds a port, on one machine only.
        timeout: seconds without a sign of life of a process after which the others end; 0 for no limit.

    Raises:
        ValueError: the numbers do not fit each other or the machine.
        SystemExit: a process failed, after it logged the reason; the exit code is that of the process.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        place = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), _local_rank()
        with _process_group("env://", os.environ["MASTER_ADDR"], *place, timeout):
            main(*args)
        return
    _check(num_gpus, num_machines, machine_rank, dist_url)
    processes = num_gpus * num_machines
    if processes == 1:
        main(*args)
        return
    url = f"tcp://127.0.0.1:{_free_port()}" if dist_url == "auto" else dist_url
    parent = _Parent(multiprocessing.get_start_method(), dict(os.environ))
    _start(num_gpus, main.__module__, (parent, main, args, url, num_gpus, machine_rank, processes, timeout))


@dataclass
class _Parent:
    """Settings that the processes of a run take over from the process that starts them.

    Attributes:
        start_method: of workers of data loaders.
        environment: environment variables.
    """

    start_method: str
    environment: dict[str, str]

    def take_over(self) -> None:
        multiprocessing.set_start_method(self.start_method, force=True)
        os.environ.clear()
        os.environ.update(self.environment)


def _start(count: int, module: str, args: tuple) -> None:
    """Starts the processes of this machine, passes requests to stop on to them, and waits for them."""
    method = clean_start_method("detrex.engine", module)
    numbers: list[int] = []  # signals received so far, of which each process gets all
    passed = 0
    with interruption.listening(), interruption.passed_on(numbers.append):
        context = mp.start_processes(_worker, args, nprocs=count, join=False, start_method=method)
        try:
            while not context.join(timeout=_POLLED_EVERY):
                for number in numbers[passed:]:
                    passed += 1
                    _send(number, context.processes)
        except mp.ProcessExitedException as error:
            ended_by_signal = error.signal_name is not None
            if ended_by_signal and numbers:
                raise interruption.Interrupted from None  # the process could not listen yet
            if ended_by_signal:
                logger.error("%s; a process that uses too much memory ends like this", error)
            raise SystemExit(max(1, error.exit_code)) from None  # for a signal, the code is negative


def _send(number: int, processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, number)


def _worker(
    local_rank: int,
    parent: _Parent,
    main: Callable,
    args: tuple,
    url: str,
    num_gpus: int,
    machine_rank: int,
    processes: int,
    timeout: float,
) -> None:
    interruption.listen()
    # A server started this process with the environment of the first run that the server was started for. It
    # would also start the loaders' workers so.
    parent.take_over()
    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // num_gpus))
    host = urlsplit(url).hostname or "127.0.0.1"
    with _process_group(url, host, machine_rank * num_gpus + local_rank, processes, local_rank, timeout):
        main(*args)


def _end_with_the_launcher() -> None:
    """Asks this process to stop when the process that launched the run has gone, for example was killed."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        launcher.join()
        os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def _process_group(
    url: str, host: str, rank: int, processes: int, local_rank: int, timeout: float
) -> Iterator[None]:
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"  # both, for train.device=cpu on a machine with GPUs
    dist.init_process_group(backend, init_method=url, rank=rank, world_size=processes)
    try:
        with heartbeat(timeout, host):
            yield
    except interruption.Interrupted:
        # All processes end together here. A process in which threads of the group are still running may abort
        # instead of ending with its exit code.
        _leave_process_group()
        raise
    # Not after an error, because the other processes may never get here.
    _leave_process_group()


def _leave_process_group() -> None:
    # A thread of gloo may still have to drop the tensor of the last exchange, which needs Python's lock.
    # Older releases of PyTorch hold the lock while they wait for that thread, so they would wait forever.
    time.sleep(0.1)
    dist.destroy_process_group()


def _check(num_gpus: int, num_machines: int, machine_rank: int, dist_url: str) -> None:
    if num_gpus < 1 or num_machines < 1:
        raise ValueError(f"--num-gpus {num_gpus} and --num-machines {num_machines} must be at least 1")
    if torch.cuda.is_available() and num_gpus > torch.cuda.device_count():
        raise ValueError(f"--num-gpus {num_gpus}, but this machine has {torch.cuda.device_count()}")
    if not 0 <= machine_rank < num_machines:
        raise ValueError(f"--machine-rank {machine_rank} must be from 0 to {num_machines - 1}")
    if num_machines > 1 and dist_url == "auto":
        raise ValueError("several machines need --dist-url tcp://HOST:PORT, the address of machine 0")


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", 0))


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
