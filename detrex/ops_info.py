"""Which implementation of deformable attention runs on the CPU, and why: ``python -m detrex.ops_info``."""

from __future__ import annotations

import sys

import torch

from detrex.ops.dispatch import VARIABLE, wanted_implementation
from detrex.ops.library import LIBRARY, KernelLibrary, cpu_library


def report() -> str:
    """The lines that the command prints."""
    wanted, library = wanted_implementation(), cpu_library()
    lines = [("multi-scale deformable attention on the CPU", _used(wanted, library))]
    if isinstance(library, KernelLibrary):
        lines += [
            ("library", str(library.path)),
            ("compiled with", library.flags),
            ("instructions", library.instructions),
            ("threads", str(torch.get_num_threads()) if library.threaded else "1 (built without OpenMP)"),
        ]
    else:
        lines += [("library", f"none at {LIBRARY}"), ("to build it", "python ops/build.py, or install again")]
    lines.append((f"{VARIABLE}, or force_implementation", wanted))
    return "\n".join(f"{name}: {text}" for name, text in lines)


def _used(wanted: str, library: object) -> str:
    usable = isinstance(library, KernelLibrary)
    if wanted == "reference":
        return "reference (PyTorch), because it is asked for"
    if usable:
        return "cpp (compiled kernel) for float32, float64, bfloat16; reference (PyTorch) for other dtypes"
    if wanted == "cpp":
        return f"none: the compiled kernel is asked for, but {library}"
    return f"reference (PyTorch), because the compiled kernel cannot be used: {library}"


if __name__ == "__main__":
    sys.stdout.write(report() + "\n")
