"""Finds the library of compiled CPU kernels, checks that it fits the source, and declares its interface."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent
LIBRARY = PACKAGE / "_msda_cpu.so"  # ops/build.py writes it
CPU_SOURCES = ("msda_cpu.cpp", "masks_cpu.cpp", "points_cpu.cpp")
# An installed package contains copies of the sources; a checkout has them in ops/.
SOURCE_FOLDERS = (PACKAGE, PACKAGE.parent.parent / "ops")

_POINTER, _INT, _NUMBER = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_FORWARD_TENSORS, _BACKWARD_TENSORS = 4, 7
# Arguments before the number of threads and the baseline switch, see ops/points_cpu.cpp.
_POINT_FUNCTIONS = {
    "uncertain": [_POINTER, *[_NUMBER] * 3, _POINTER, *[_NUMBER] * 3, _POINTER],
    "read": [_POINTER, *[_NUMBER] * 4, _POINTER, _NUMBER, _POINTER],
    "read_backward": [_POINTER, *[_NUMBER] * 4, _POINTER, _NUMBER, _POINTER],
    "read_masks": [_POINTER, _POINTER, *[_NUMBER] * 4, _POINTER, _NUMBER, _POINTER],
}


class KernelError(RuntimeError):
    """A kernel cannot be used; the message says why."""


class Sizes(ctypes.Structure):
    """``MsdaSizes`` of the C interface."""

    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("batch", "tokens", "heads", "dim", "queries", "levels", "points")
    )


class Reference(ctypes.Structure):
    """``MsdaReference`` of the C interface."""

    _fields_ = (
        ("places", _POINTER),
        *((name, _NUMBER) for name in ("dims", "image_stride", "query_stride", "level_stride")),
    )


class MaskAxis(ctypes.Structure):
    """``MaskAxis`` of the C interface."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("cells", "pixels", "taps")),
        *((name, _POINTER) for name in ("first", "weights", "pixels_of")),
    )


class MaskResult(ctypes.Structure):
    """``MaskResult`` of the C interface."""

    _fields_ = (
        ("counts", _POINTER),
        ("length", ctypes.c_int64),
        ("area", ctypes.c_int64),
        ("probability", ctypes.c_double),
    )


@dataclass(frozen=True)
class KernelLibrary:
    """A loaded library.

    Attributes:
        path: its file.
        flags: of the compiler.
        instructions: the fastest vector instructions that the library contains and this machine supports.
        threaded: whether it was built with OpenMP.
        baseline: whether to use only instructions that every machine has.
    """

    path: Path
    flags: str
    instructions: str
    threaded: bool
    handle: ctypes.CDLL
    baseline: bool = False

    def function(self, name: str) -> Any:
        """``msda_<name>``, with its argument types set."""
        return getattr(self.handle, f"msda_{name}")


def open_library(path: Path) -> KernelLibrary:
    """Loads a library.

    Raises:
        KernelError: if it is missing, cannot be loaded or was built from another source.
    """
    if not path.is_file():
        raise KernelError(f"it is not built: {path} does not exist")
    try:
        handle = ctypes.CDLL(str(path))
        for name in ("source", "flags", "instructions"):
            getattr(handle, f"msda_{name}").restype = ctypes.c_char_p
        built_from = handle.msda_source().decode()
    except (OSError, AttributeError) as error:
        raise KernelError(f"{path} cannot be loaded: {error}") from error
    if built_from != (expected := _source_digest()):
        raise KernelError(
            f"{path} is stale: built from source {built_from}, not from {expected}; build it again"
        )
    for dtype in ("float32", "float64"):
        _declare(getattr(handle, f"msda_forward_{dtype}"), _FORWARD_TENSORS)
        _declare(getattr(handle, f"msda_backward_{dtype}"), _BACKWARD_TENSORS)
    _declare(handle.msda_attend_float32, _FORWARD_TENSORS + 1)
    handle.msda_most_samples.restype = _NUMBER
    axis, results = ctypes.POINTER(MaskAxis), ctypes.POINTER(MaskResult)
    handle.masks_encode.argtypes = [_POINTER, _NUMBER, axis, axis, _INT, results, _INT, _INT]
    handle.masks_release.argtypes, handle.masks_release.restype = [results, _NUMBER], None
    for name, arguments in _POINT_FUNCTIONS.items():
        function = getattr(handle, f"points_{name}")
        function.argtypes, function.restype = [*arguments, _INT, _INT], None
    return KernelLibrary(
        path,
        handle.msda_flags().decode(),
        handle.msda_instructions().decode(),
        bool(handle.msda_has_openmp()),
        handle,
    )


@functools.cache
def cpu_library() -> KernelLibrary | KernelError:
    """The library of this installation, or the reason why there is none. It is looked up once per process."""
    try:
        return open_library(LIBRARY)
    except KernelError as error:
        # A kernel that was never built is a choice of the installation; an unusable one deserves a message.
        level = logging.WARNING if LIBRARY.exists() else logging.INFO
        logger.log(level, "the CPU kernels are not used, PyTorch code runs: %s", error)
        return error


def source_file(name: str) -> Path:
    """A kernel's source.

    Raises:
        KernelError: if the file is missing.
    """
    for folder in SOURCE_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise KernelError(f"the source of the kernel is not at {PACKAGE / name}: install this project again")


def _source_digest() -> str:
    content = b"".join(source_file(name).read_bytes() for name in CPU_SOURCES)
    return hashlib.sha256(content).hexdigest()[:16]


def _declare(function: Any, tensors: int) -> None:
    """Declares a function of sizes, shapes, tensors, the number of threads and the baseline switch."""
    function.argtypes = [ctypes.POINTER(Sizes), *[_POINTER] * (1 + tensors), _INT, _INT]
    function.restype = None
