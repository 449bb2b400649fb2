"""Describes the machine on which numbers were measured."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from detrex import __version__

GIBIBYTE = 2**30


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads, versions, the device's name and how busy the machine is, for JSON."""
    machine = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "device": device.type,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "detrex": __version__,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["device"] = f"{properties.name}, {properties.total_memory / GIBIBYTE:.0f} GiB"
        machine["cuda"] = torch.version.cuda
    return machine


def _processor() -> str:
    if not Path("/proc/cpuinfo").is_file():
        return platform.processor() or platform.machine()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def reset_peak_memory(device: torch.device) -> None:
    """Resets the peak memory of a GPU; that of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory(device: torch.device) -> tuple[int, int]:
    """Bytes in use now and at most: of tensors on a GPU, or of this whole process (resident) on the CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    # Not getrusage, for which a new process starts with the peak of the process that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    kibibytes = {name: value for name, _, value in (line.partition(":") for line in status)}
    now, most = (int(kibibytes[key].split()[0]) for key in ("VmRSS", "VmHWM"))
    return 1024 * now, 1024 * most
