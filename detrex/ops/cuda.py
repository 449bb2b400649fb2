"""Compiles and runs the CUDA kernel. Tensors are dense and were checked by ``detrex.ops.operator``.

``ops/msda_cuda.cu`` is compiled for each set of a model's sizes, a :class:`Variant`, at its first use on a
device.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detrex.ops.driver import Module, driver
from detrex.ops.library import KernelError, Sizes, source_file
from detrex.ops.nvrtc import Nvrtc, compiled, nvrtc
from detrex.ops.reference import dtype_of_sums

logger = logging.getLogger(__name__)

MAX_DIM = 1024  # channels of a head; with more, a thread's sums do not fit into registers
MAX_LEVELS = 240  # their shapes are arguments of the kernel, which has 4 KB for arguments
_MAX_CELLS = 2**31 - 1  # cells of a level

_THREADS = (
    128  # of a block: few, so that the decoder's few hundred queries make blocks for all multiprocessors
)
_WARP = 32
_VECTOR_BYTES = 16  # the widest access of a thread
MAX_GRID_Y = 65535
_ALIGNMENT = 16  # bytes
_TYPES = {torch.float32: "float", torch.float64: "double", torch.float16: "Half", torch.bfloat16: "Bfloat"}
# From this capability on, one instruction adds four float32 numbers to memory.
_CAPABILITY_OF_VECTOR_ATOMICS = 90


@dataclass(frozen=True)
class Variant:
    """The constants that the kernel is compiled for.

    Attributes:
        dtype: of the value.
        heads, dim, levels, points: M, D, L and P.
        capability: of the device, such as 90 for 9.0.
    """

    dtype: torch.dtype
    heads: int
    dim: int
    levels: int
    points: int
    capability: int

    def vector(self, direction: str) -> int:
        """Number of channels that a thread processes at once: a power of two that divides D.

        If atomic additions take single numbers, neighbouring threads add to neighbouring numbers.
        """
        widest = _VECTOR_BYTES // self.dtype.itemsize
        if direction == "backward" and self.capability < _CAPABILITY_OF_VECTOR_ATOMICS:
            widest = 2 if self.dtype.itemsize == 2 else 1  # loads of at least 4 bytes
        return min(widest, self.dim & -self.dim)

    def lanes(self, direction: str) -> int:
        """Number of threads that share the channels of a query and head: a power of two, at most a warp."""
        vectors = self.dim // self.vector(direction)
        return min(_WARP, 1 << (vectors - 1).bit_length())

    def grid(self, direction: str, sizes: Sizes) -> tuple[int, int]:
        """Numbers of blocks: for the queries and heads of an image, and for images."""
        items = _THREADS // self.lanes(direction)
        return -(-sizes.queries * sizes.heads // items), min(sizes.batch, MAX_GRID_Y)

    def options(self) -> tuple[str, ...]:
        """Options for the compiler."""
        numbers = {
            "VALUE": _TYPES[self.dtype],
            "SUM": _TYPES[dtype_of_sums(self.dtype)],
            "HEADS": self.heads,
            "DIM": self.dim,
            "LEVELS": self.levels,
            "POINTS": self.points,
            "THREADS": _THREADS,
        }
        for direction in ("forward", "backward"):
            numbers[f"{direction.upper()}_VECTOR"] = self.vector(direction)
            numbers[f"{direction.upper()}_LANES"] = self.lanes(direction)
        return ("--std=c++17", *(f"-DMSDA_{name}={number}" for name, number in numbers.items()))


class Level(ctypes.Structure):
    """A level of the pyramid, laid out as the kernel's ``Level``."""

    _fields_ = (("height", ctypes.c_int32), ("width", ctypes.c_int32), ("start", ctypes.c_int64))


@functools.cache
def _arguments_type(levels: int) -> type[ctypes.Structure]:
    """The sizes of a call, laid out as the kernel's ``Sizes``."""
    numbers = [(name, ctypes.c_int64) for name in ("batch", "tokens", "queries")]
    return type("Arguments", (ctypes.Structure,), {"_fields_": [*numbers, ("levels", Level * levels)]})


def size_arguments(sizes: Sizes, shapes: Sequence[int]) -> ctypes.Structure:
    """The kernel's last argument.

    Raises:
        ValueError: if a level has too many cells.
    """
    arguments = _arguments_type(sizes.levels)(sizes.batch, sizes.tokens, sizes.queries)
    start = 0
    for i, (height, width) in enumerate(zip(shapes[::2], shapes[1::2], strict=True)):
        if max(height, width, height * width) > _MAX_CELLS:
            raise ValueError(f"a level of {height} x {width} cells is too large: the limit is {_MAX_CELLS}")
        arguments.levels[i] = Level(height, width, start)
        start += height * width
    return arguments


class Kernel:
    """A variant on a device.

    Raises:
        KernelError: if it cannot be compiled or loaded.
    """

    def __init__(self, variant: Variant, device: int):
        compiler = compiler_or_error()
        options = (f"--gpu-architecture={compiler.target(variant.capability)}", *variant.options())
        self.variant = variant
        self._module = Module(compiled(kernel_source(), options, compiler), device)
        self._functions = {
            direction: self._module.function(f"msda_{direction}") for direction in ("forward", "backward")
        }

    def launch(self, direction: str, sizes: Sizes, shapes: Sequence[int], tensors: list[Tensor]) -> None:
        """Queues a pass on the current stream of the tensors' device; inputs first, then outputs."""
        arguments: list[Any] = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
        arguments.append(size_arguments(sizes, shapes))
        stream = torch.cuda.current_stream(tensors[0].device).cuda_stream
        grid = self.variant.grid(direction, sizes)
        self._module.launch(self._functions[direction], grid, _THREADS, stream, arguments)


LOADED_KERNELS: dict[tuple[Variant, int], Kernel] = {}
_lock = threading.Lock()


def kernel_of(variant: Variant, device: int) -> Kernel:
    """The kernel, compiled and loaded once per device and process.

    Raises:
        KernelError: if the kernel cannot be compiled or loaded.
    """
    key = variant, device
    if key not in LOADED_KERNELS:
        with _lock:
            if key not in LOADED_KERNELS:
                LOADED_KERNELS[key] = Kernel(variant, device)
    return LOADED_KERNELS[key]


def kernel_source() -> str:
    """The text of ``msda_cuda.cu``.

    Raises:
        KernelError: if the file is missing.
    """
    return source_file("msda_cuda.cu").read_text()


def compiler_or_error() -> Nvrtc:
    """The compiler NVRTC.

    Raises:
        KernelError: if it is not installed.
    """
    compiler = nvrtc()
    if isinstance(compiler, KernelError):
        raise KernelError(str(compiler))
    return compiler


@functools.cache
def capability_of(device: int) -> int:
    """The compute capability of a device, such as 90 for 9.0."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@functools.cache
def cuda_obstacle(device: int) -> str | None:
    """The reason why the kernel does not run on a device; None if it does. A small variant is tried once."""
    try:
        driver()
        compiler_or_error()
        kernel_of(Variant(torch.float32, 1, 1, 1, 1, capability_of(device)), device)
    except (KernelError, OSError) as error:
        logger.warning("the CUDA kernel of deformable attention is not used, PyTorch code runs: %s", error)
        return str(error)
    return None


def forward(sizes: Sizes, shapes: Sequence[int], value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The output, (B, Q, M, D).

    Raises:
        KernelError: if the kernel cannot be compiled or launched.
        ValueError: if a level has too many cells.
    """
    output = value.new_empty(sizes.batch, sizes.queries, sizes.heads, sizes.dim)
    if not _has_samples(sizes):
        return output.zero_()
    _run("forward", sizes, shapes, [value, locations, weights], [output])
    return output


def backward(
    sizes: Sizes,
    shapes: Sequence[int],
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights. That of the value is summed in at least float32.

    Raises:
        KernelError: if the kernel cannot be compiled or launched.
        ValueError: if a level has too many cells.
        RuntimeError: if PyTorch may only use deterministic algorithms.
    """
    _alert_not_deterministic()
    grad_value = torch.zeros_like(value, dtype=locations.dtype)  # the kernel adds to it
    grads = [grad_value, torch.empty_like(locations), torch.empty_like(weights)]
    if _has_samples(sizes):
        _run("backward", sizes, shapes, [value, locations, weights, grad_output], grads)
    else:
        grads = [grad.zero_() for grad in grads]
    return grad_value.to(value.dtype), grads[1], grads[2]


def _has_samples(sizes: Sizes) -> bool:
    return all((sizes.batch, sizes.queries, sizes.heads, sizes.dim, sizes.levels, sizes.points))


def _run(
    direction: str, sizes: Sizes, shapes: Sequence[int], inputs: list[Tensor], outputs: list[Tensor]
) -> None:
    # A dense part of a larger tensor can start anywhere.
    inputs = [t.clone() if t.data_ptr() % _ALIGNMENT else t for t in inputs]
    device = inputs[0].device.index
    variant = Variant(
        inputs[0].dtype, sizes.heads, sizes.dim, sizes.levels, sizes.points, capability_of(device)
    )
    kernel_of(variant, device).launch(direction, sizes, shapes, [*inputs, *outputs])


def _alert_not_deterministic() -> None:
    """Warns like PyTorch's operators that add to memory in any order, such as ``grid_sample``."""
    if not torch.are_deterministic_algorithms_enabled():
        return
    words = (
        "the gradient of deformable attention is not deterministic on GPUs, which add in any order; "
        "use torch.use_deterministic_algorithms(True, warn_only=True), or the CPU"
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(words)
    warnings.warn(words, stacklevel=2)
