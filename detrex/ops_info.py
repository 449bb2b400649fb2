"""Tells which implementation of deformable attention runs here, and why: ``python -m detrex.ops_info``."""

from __future__ import annotations

import sys

import torch

from detrex.ops.cuda import capability_of, cuda_obstacle
from detrex.ops.dispatch import VARIABLE, wanted_implementation
from detrex.ops.library import LIBRARY, KernelError, KernelLibrary, cpu_library
from detrex.ops.nvrtc import Nvrtc, nvrtc
from detrex.runtime.cache import cache_folder

_DTYPES = "float32, float64, bfloat16, float16"


def report() -> str:
    """The lines that the command prints."""
    wanted = wanted_implementation()
    lines = [*_of_the_cpu(wanted), *_of_the_gpus(wanted)]
    lines.append((f"{VARIABLE}, or force_implementation", wanted))
    return "\n".join(f"{name}: {text}" for name, text in lines)


def _of_the_cpu(wanted: str) -> list[tuple[str, str]]:
    library = cpu_library()
    obstacle = str(library) if isinstance(library, KernelError) else None
    lines = [("multi-scale deformable attention on the CPU", _used("cpp", wanted, obstacle))]
    if isinstance(library, KernelLibrary):
        return [
            *lines,
            ("library", str(library.path)),
            ("compiled with", library.flags),
            ("instructions", library.instructions),
            ("threads", str(torch.get_num_threads()) if library.threaded else "1 (built without OpenMP)"),
        ]
    return [
        *lines,
        ("library", f"none at {LIBRARY}"),
        ("to build it", "python ops/build.py, or install again"),
    ]


def _of_the_gpus(wanted: str) -> list[tuple[str, str]]:
    compiler = nvrtc()
    lines = [
        ("CUDA compiler (NVRTC)", _compiler(compiler)),
        ("compiled CUDA kernels", str(cache_folder("kernels"))),
    ]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    if not devices:
        return [("on CUDA devices", "there are none here"), *lines]
    for device in devices:
        name = f"{torch.cuda.get_device_name(device)}, sm_{capability_of(device)}"
        lines.append((f"on cuda:{device} ({name})", _used("cuda", wanted, cuda_obstacle(device))))
    return lines


def _compiler(compiler: Nvrtc | KernelError) -> str:
    if isinstance(compiler, KernelError):
        return f"none: {compiler}"
    return f"{compiler.version[0]}.{compiler.version[1]}, {compiler.path}"


def _used(kernel: str, wanted: str, obstacle: str | None) -> str:
    if wanted == "reference":
        return "reference (PyTorch), because it is asked for"
    if obstacle is None:
        return f"{kernel} (compiled kernel) for {_DTYPES}; reference (PyTorch) for other dtypes"
    if wanted == "kernel":
        return f"none: the compiled kernel is asked for, but {obstacle}"
    return f"reference (PyTorch), because the compiled kernel cannot be used: {obstacle}"


if __name__ == "__main__":
    sys.stdout.write(report() + "\n")
