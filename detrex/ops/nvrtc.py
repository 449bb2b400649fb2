"""Compiles CUDA C++ with NVRTC, NVIDIA's compiler in a library, and caches the results on the disk.

PyTorch's own packages bring the library, so no CUDA toolkit is needed.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from detrex.ops.library import KernelError
from detrex.runtime.cache import cache_folder
from detrex.runtime.files import replaced_file

logger = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Nvrtc:
    """A loaded NVRTC library.

    Attributes:
        path: its file.
        version: (major, minor).
        architectures: compute capabilities that it compiles for, such as 90 for 9.0.
    """

    path: Path
    version: tuple[int, int]
    architectures: tuple[int, ...]
    handle: ctypes.CDLL

    def target(self, capability: int) -> str:
        """The architecture to compile for: that of the device, or one that its driver can translate.

        Raises:
            KernelError: if this NVRTC knows no architecture that runs on the device.
        """
        if capability in self.architectures:
            return f"sm_{capability}"
        older = [known for known in self.architectures if known < capability]
        if not older:
            raise KernelError(
                f"NVRTC {self.version[0]}.{self.version[1]} does not compile for this GPU's sm_{capability}, "
                f"but from sm_{min(self.architectures)} on"
            )
        return f"compute_{max(older)}"

    def compile(self, source: str, options: tuple[str, ...]) -> bytes:
        """Machine code for the driver: a cubin, or PTX if the options name a ``compute_`` architecture.

        Raises:
            KernelError: with the compiler's first error.
        """
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"msda_cuda.cu", 0, None, None
        )
        try:
            flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if self.handle.nvrtcCompileProgram(program, len(options), flags):
                log = self._result(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
                logger.debug("NVRTC with %s:\n%s", " ".join(options), log)
                first = next((line for line in log.splitlines() if "error" in line), log.strip())
                raise KernelError(f"NVRTC cannot compile it: {first}")
            is_ptx = any("compute_" in option for option in options)
            return self._result(program, "PTX" if is_ptx else "CUBIN")
        finally:
            self.handle.nvrtcDestroyProgram(ctypes.byref(program))

    def _result(self, program: ctypes.c_void_p, kind: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{kind}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{kind}", program, buffer)
        return buffer.raw

    def _call(self, name: str, *arguments: object) -> None:
        if status := getattr(self.handle, name)(*arguments):
            words = self.handle.nvrtcGetErrorString(status).decode()
            raise KernelError(f"{name} of {self.path} failed: {words}")


def open_nvrtc(path: Path) -> Nvrtc:
    """Loads a library.

    Raises:
        KernelError: if it cannot be loaded or is too old.
    """
    try:
        handle = ctypes.CDLL(str(path))
        handle.nvrtcGetErrorString.restype = ctypes.c_char_p
        numbers = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        handle.nvrtcVersion(ctypes.byref(numbers[0]), ctypes.byref(numbers[1]))
        handle.nvrtcGetNumSupportedArchs(ctypes.byref(numbers[2]))
        architectures = (ctypes.c_int * numbers[2].value)()
        handle.nvrtcGetSupportedArchs(architectures)
    except (OSError, AttributeError) as error:
        raise KernelError(f"{path} cannot be loaded: {error}") from error
    return Nvrtc(path, (numbers[0].value, numbers[1].value), tuple(sorted(architectures)), handle)


@functools.cache
def nvrtc() -> Nvrtc | KernelError:
    """The NVRTC of this installation, or the reason why there is none. It is looked up once per process."""
    version = torch.version.cuda
    if version is None:
        return KernelError("this PyTorch is built without CUDA")
    error = KernelError(f"NVRTC is neither in PyTorch's packages nor in a CUDA {version} toolkit")
    for path in candidates(version.partition(".")[0]):
        try:
            return open_nvrtc(path)
        except KernelError as problem:
            error = problem
    return error


def candidates(major: str) -> Iterator[Path]:
    """Files and names to try, those of PyTorch's version of CUDA first."""
    spec = importlib.util.find_spec("nvidia")
    packages = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    folders = [folder for package in packages for folder in sorted(Path(package).glob("*/lib"))]
    folders += [Path(torch.__file__).parent / "lib", Path(sys.prefix) / "lib"]
    toolkits = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders += [Path(toolkit, "lib64") for toolkit in toolkits if toolkit]
    for pattern in (f"libnvrtc.so.{major}*", f"libnvrtc-*.so.{major}*"):  # PyTorch renames its copies
        for folder in folders:
            yield from sorted(path for path in folder.glob(pattern) if "builtins" not in path.name)
    yield Path(f"libnvrtc.so.{major}")  # wherever the system looks for libraries


def compiled(source: str, options: tuple[str, ...], compiler: Nvrtc) -> bytes:
    """The result of ``compiler.compile``, from the cache if it is there.

    A file in the cache begins with the SHA-256 of the rest; if that is wrong, the source is compiled again.

    Raises:
        KernelError: with the compiler's first error.
    """
    name = hashlib.sha256(repr((source, options, compiler.version)).encode()).hexdigest()[:32]
    path = cache_folder("kernels") / f"msda-{name}.bin"
    known = _read(path)
    if known is not None:
        return known
    code = compiler.compile(source, options)
    try:
        _write(path, code)
    except OSError as error:
        logger.warning("the kernel will be compiled again by the next process: %s", error)
    return code


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    """Writes atomically, so that several processes may compile at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as temporary:
        temporary.write_bytes(hashlib.sha256(code).digest() + code)
