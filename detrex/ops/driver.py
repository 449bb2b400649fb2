"""The needed part of the CUDA driver's interface: loads machine code and launches its kernels."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detrex.ops.library import KernelError

LIBRARY = "libcuda.so.1"


class Driver:
    """The loaded driver.

    Raises:
        KernelError: if there is none, or it finds no device.
    """

    def __init__(self) -> None:
        try:
            self._handle = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise KernelError(f"there is no NVIDIA driver: {error}") from error
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: object) -> None:
        """Calls a function.

        Raises:
            KernelError: if it fails.
        """
        if status := getattr(self._handle, name)(*arguments):
            words = ctypes.c_char_p()
            self._handle.cuGetErrorString(status, ctypes.byref(words))
            raise KernelError(f"{name} failed: {(words.value or b'error %d' % status).decode()}")


@functools.cache
def driver() -> Driver:
    """The driver, loaded once per process.

    Raises:
        KernelError: if there is none, or it finds no device.
    """
    return Driver()


class Module:
    """Machine code on one device, in the context that PyTorch uses (the device's primary one).

    Args:
        code: a cubin, or PTX.
        device: its index.

    Raises:
        KernelError: if the driver does not take the code.
    """

    def __init__(self, code: bytes, device: int):
        self._driver = driver()
        number, self.context = ctypes.c_int(), ctypes.c_void_p()
        self._driver.call("cuDeviceGet", ctypes.byref(number), device)
        # Kept until the process ends, like the module and PyTorch's use of the context.
        self._driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), number)
        self._module = ctypes.c_void_p()
        with self._current():
            self._driver.call("cuModuleLoadData", ctypes.byref(self._module), code)

    def function(self, name: str) -> ctypes.c_void_p:
        """A kernel of the code, for :meth:`launch`.

        Raises:
            KernelError: if there is no kernel of this name.
        """
        function = ctypes.c_void_p()
        with self._current():
            self._driver.call("cuModuleGetFunction", ctypes.byref(function), self._module, name.encode())
        return function

    def launch(
        self,
        function: ctypes.c_void_p,
        grid: tuple[int, int],
        threads: int,
        stream: int,
        arguments: list[Any],
    ) -> None:
        """Queues a kernel on a stream and returns.

        Args:
            function: of this module.
            grid: numbers of blocks in x and y.
            threads: of a block.
            stream: the driver's handle.
            arguments: of the kernel, as objects of ctypes.

        Raises:
            KernelError: if the driver refuses.
        """
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        blocks = grid[0], grid[1], 1
        with self._current():
            self._driver.call(
                "cuLaunchKernel",
                function,
                *blocks,
                threads,
                1,
                1,
                0,
                ctypes.c_void_p(stream),
                addresses,
                None,
            )

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Inside the block, the thread's context is that of this device."""
        self._driver.call("cuCtxPushCurrent_v2", self.context)
        try:
            yield
        finally:
            self._driver.call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
