"""The kernels of this source, and the implementations under test."""

import ctypes
import dataclasses
import subprocess
from pathlib import Path

import pytest
import torch

from detrex.ops import cpu, cuda, dispatch, force_implementation, masks, operator, points
from detrex.ops.library import LIBRARY, KernelError, open_library

ROOT = Path(__file__).resolve().parents[2]
GPU = pytest.param("cuda", marks=pytest.mark.gpu)
IMPLEMENTATIONS = ("reference", "cpp", "cpp-baseline", "cuda-emulated", GPU)


@pytest.fixture(scope="session")
def build(build_script):
    """The build script as a namespace."""
    return build_script


@pytest.fixture(scope="session")
def library(build, tmp_path_factory):
    """The installed library if it is of this source, as after ``make test``; else one compiled anew."""
    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    try:
        return open_library(LIBRARY)
    except KernelError:
        path = tmp_path_factory.mktemp("kernel") / build.LIBRARY_NAME
        build.compile_library(path)
        return open_library(path)


@pytest.fixture
def use_library(monkeypatch):
    """A function that makes a library, or the error of having no kernel, this installation's."""

    def use(library):
        for module in (cpu, dispatch, masks, points):
            monkeypatch.setattr(module, "cpu_library", lambda: library)
        if isinstance(library, KernelError):
            monkeypatch.setattr(dispatch, "cuda_obstacle", lambda _device: str(library))
        torch.compiler.reset()

    return use


class EmulatedKernel:
    """The CUDA kernel on CPU tensors, by the program of ``cuda_on_cpu.cpp``: in place of ``cuda.Kernel``."""

    def __init__(self, variant, program):
        self.variant = variant
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def launch(self, direction, sizes, shapes, tensors):
        count = {"forward": 1, "backward": 3}[direction]
        head = (ctypes.c_int32 * 4)(count - 1, *self.variant.grid(direction, sizes))
        pipe = self._process.stdin
        pipe.write(bytes(head)[:12].ljust(16, b"\0") + bytes(cuda.size_arguments(sizes, shapes)))
        for tensor in tensors[:-count]:
            pipe.write(tensor.flatten().view(torch.uint8).numpy())
        pipe.flush()
        for tensor in tensors[-count:]:
            read = self._process.stdout.readinto(tensor.flatten().view(torch.uint8).numpy())
            assert read == tensor.nbytes, "the sanitizer stopped the kernel, see standard error"

    def end(self):
        self._process.stdin.close()
        assert self._process.wait() == 0


@pytest.fixture(scope="session")
def emulated_kernel_of(build, tmp_path_factory):
    """A function like ``cuda.kernel_of`` whose kernels run on the CPU."""
    try:
        compiler = build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    folder, kernels = tmp_path_factory.mktemp("emulation"), {}
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags = ["-std=c++17", "-O0", "-g1", "-fno-strict-aliasing", "-Wno-unknown-pragmas", *sanitizers]

    def make(variant):
        program = folder / str(len(kernels))
        macros = [f"-D__CUDA_ARCH__={10 * variant.capability}", *variant.options()[1:]]
        macros.append(f'-DMSDA_KERNEL="{ROOT / "ops" / "msda_cuda.cu"}"')
        source = str(Path(__file__).with_name("cuda_on_cpu.cpp"))
        command = [*compiler, *flags, *macros, source, "-o", str(program)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode and ("sanitize" in run.stderr or "asan" in run.stderr or "_Float16" in run.stderr):
            pytest.skip(f"the compiler lacks what the emulation needs: {run.stderr}")
        assert run.returncode == 0, run.stderr
        return EmulatedKernel(variant, program)

    def kernel_of(variant, _device=None):
        if variant not in kernels:
            kernels[variant] = make(variant)
        return kernels[variant]

    yield kernel_of
    for kernel in kernels.values():
        kernel.end()


@pytest.fixture
def emulate(emulated_kernel_of, use_library, monkeypatch):
    """A function that makes the CUDA kernel, for devices of a compute capability, that of CPU tensors."""

    def emulate(capability):
        monkeypatch.setattr(cuda, "kernel_of", emulated_kernel_of)
        monkeypatch.setattr(cuda, "capability_of", lambda _device: capability)
        monkeypatch.setitem(operator.KERNELS, "cpu", cuda)
        use_library("emulated")

    return emulate


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request, use_library):
    """Runs a test with each implementation."""
    name, _, kind = request.param.partition("-")
    if name == "cpp":
        library = request.getfixturevalue("library")
        use_library(dataclasses.replace(library, baseline=kind == "baseline"))
    elif kind == "emulated":
        request.getfixturevalue("emulate")(90)
    with force_implementation("reference" if name == "reference" else "kernel"):
        yield request.param


@pytest.fixture
def device(request):
    """Where the tensors of a test are: on a GPU if it runs the CUDA kernel there."""
    marked = request.node.get_closest_marker("gpu") is not None
    return torch.device("cuda" if marked else "cpu")


@pytest.fixture(params=["cpp", GPU])
def kernel(request, use_library):
    """Forces the kernel of the device."""
    if request.param == "cpp":
        use_library(request.getfixturevalue("library"))
    with force_implementation("kernel"):
        yield request.param


@pytest.fixture
def make_inputs(device):
    """Value, locations and weights; locations in [-0.3, 1.3]: outside, at the border and inside."""

    def make(shapes, batch=2, queries=3, heads=2, points=2, dim=2, dtype=torch.float64):
        generator = torch.Generator().manual_seed(0)
        tokens = sum(h * w for h, w in shapes)
        value = torch.randn(batch, tokens, heads, dim, dtype=dtype, generator=generator)
        samples = (batch, queries, heads, len(shapes), points)
        locations = torch.rand(*samples, 2, dtype=dtype, generator=generator) * 1.6 - 0.3
        weights = torch.rand(samples, dtype=dtype, generator=generator)
        return value.to(device), locations.to(device), weights.to(device)

    return make
