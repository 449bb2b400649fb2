"""Compiling, keeping, loading and launching the CUDA kernel, without a GPU."""

import ctypes
import logging
import shutil
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from detrex.ops import cuda, driver, nvrtc, operator
from detrex.ops.cuda import Variant
from detrex.ops.library import KernelError, Sizes

SHAPES = ((3, 4), (2, 2))
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

# A driver that notes what it is asked to launch: arguments are read as the kernel would, by their addresses.
DRIVER = """
#include <string.h>
typedef struct { unsigned grid[3], block[3], shared; void *stream, *function; char arguments[8][64]; } Launch;
static Launch launches[16];
static int count, context, other;
static void* stack[64] = {&other};
static int depth = 1;
Launch* noted(int i) { return &launches[i]; }
int noted_count(void) { return count; }
int context_depth(void) { return depth; }
int cuInit(unsigned flags) { return flags != 0; }
int cuDeviceGet(int* device, int index) { *device = index; return index != 0; }
int cuDevicePrimaryCtxRetain(void** result, int device) { *result = &context; return device != 0; }
int cuCtxPushCurrent_v2(void* c) { stack[depth++] = c; return c != &context; }
int cuCtxPopCurrent_v2(void** c) { *c = stack[--depth]; return 0; }
int cuModuleLoadData(void** module, const char* code) {
  *module = &other;
  return memcmp(code, "\\x7f" "ELF", 4);
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = (void*)(size_t)(strcmp(name, "msda_forward") ? 2 : 1);
  return module != &other || stack[depth - 1] != &context;
}
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** arguments, void** extra) {
  Launch* l = &launches[count++];
  unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
  int tensors = (size_t)f == 1 ? 4 : 7;
  memcpy(l->grid, grid, sizeof grid);
  memcpy(l->block, block, sizeof block);
  l->shared = shared;
  l->stream = stream;
  l->function = f;
  for (int i = 0; i < tensors; ++i) memcpy(l->arguments[i], arguments[i], sizeof(void*));
  memcpy(l->arguments[tensors], arguments[tensors], 24 + 2 * 16);
  return extra || stack[depth - 1] != &context ? 400 : 0;
}
int cuGetErrorString(int status, const char** words) {
  *words = status == 400 ? "invalid resource handle" : 0;
  return 0;
}
"""


class Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("function", ctypes.c_void_p),
        ("arguments", (ctypes.c_char * 64) * 8),
    )


@pytest.fixture
def compiler():
    found = nvrtc.nvrtc()
    if isinstance(found, KernelError):
        pytest.skip(str(found))
    return found


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is compiled, loaded or found yet."""
    caches = (nvrtc.nvrtc, driver.driver, cuda.cuda_obstacle)
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda, "LOADED_KERNELS", {})
    for cache in caches:
        cache.cache_clear()
    yield tmp_path / "cache" / "kernels"
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def noting_driver(build, fresh, monkeypatch, tmp_path):  # noqa: ARG001
    """The driver above in place of NVIDIA's."""
    try:
        compiler = build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    source, library = tmp_path / "driver.c", tmp_path / "libcuda.so"
    source.write_text(DRIVER)
    subprocess.run([*compiler, "-x", "c", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    monkeypatch.setattr(driver, "LIBRARY", str(library))
    monkeypatch.setattr(cuda, "capability_of", lambda _device: 90)
    handle = ctypes.CDLL(str(library))
    handle.noted.restype = ctypes.POINTER(Launch)
    return handle


def variant(dtype=torch.float32, dim=32, capability=90, levels=4, points=4):
    return Variant(dtype, 8, dim, levels, points, capability)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nvrtc_compiles_it(compiler, dtype):
    for capability in (70, 75, 80, 90):
        if capability not in compiler.architectures:
            continue
        wanted = variant(dtype, capability=capability)
        code = compiler.compile(
            cuda.kernel_source(), (f"--gpu-architecture=sm_{capability}", *wanted.options())
        )
        assert code.startswith(b"\x7fELF") and b"msda_forward" in code and b"msda_backward" in code


@pytest.mark.parametrize("dim", [1, 8, 65, 128, cuda.MAX_DIM])
def test_nvrtc_compiles_it_for_any_number_of_channels(compiler, dim):
    options = variant(dim=dim, levels=1, points=5).options()
    assert compiler.compile(cuda.kernel_source(), ("--gpu-architecture=sm_90", *options))


def test_as_many_levels_fit_as_are_promised(compiler):
    options = variant(levels=cuda.MAX_LEVELS).options()
    assert compiler.compile(cuda.kernel_source(), ("--gpu-architecture=sm_80", *options))


def test_a_device_newer_than_the_compiler_gets_code_for_its_driver(compiler):
    assert compiler.target(90) == "sm_90"
    target = compiler.target(max(compiler.architectures) + 1)
    assert target == f"compute_{max(compiler.architectures)}"
    code = compiler.compile(cuda.kernel_source(), (f"--gpu-architecture={target}", *variant().options()))
    assert b".entry msda_forward" in code and code.endswith(b"\0")
    with pytest.raises(KernelError, match="does not compile for this GPU's sm_20, but from sm_"):
        compiler.target(20)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("capability", [80, 90])
def test_nvcc_compiles_it_without_warnings_or_spilled_registers(dtype, capability, tmp_path):
    if (nvcc := shutil.which("nvcc")) is None:
        pytest.skip("nvcc is not installed")
    options = variant(dtype, capability=capability).options()[1:]
    flags = ["-std=c++17", "-cubin", f"-arch=sm_{capability}", "-Werror", "all-warnings", "-Xptxas", "-v"]
    source = str(cuda.source_file("msda_cuda.cu"))
    command = [nvcc, *flags, *options, source, "-o", str(tmp_path / "kernel")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("0 bytes spill stores") == 2, run.stderr


def test_what_the_compiler_says_is_told(compiler):
    with pytest.raises(
        KernelError, match=r"NVRTC cannot compile it: msda_cuda\.cu\(1\): error: .*type specifier$"
    ):
        compiler.compile("nonsense;", ("--std=c++17",))


class CountingCompiler:
    version = (1, 0)

    def __init__(self):
        self.runs = 0

    def compile(self, source, options):
        self.runs += 1
        return f"{source} {options}".encode()


@pytest.mark.usefixtures("fresh")
def test_what_was_compiled_is_kept_on_the_disk(fresh):
    compiler = CountingCompiler()
    code = nvrtc.compiled("source", ("a",), compiler)
    assert nvrtc.compiled("source", ("a",), compiler) == code and compiler.runs == 1
    (file,) = fresh.iterdir()
    content = file.read_bytes()
    for damage in (b"", content[:-1], content[:10], content[:-1] + b"?", b"?" + content[1:]):
        before = compiler.runs
        file.write_bytes(damage)
        assert nvrtc.compiled("source", ("a",), compiler) == code and compiler.runs == before + 1
        assert file.read_bytes() == content and list(fresh.iterdir()) == [file]
    before = compiler.runs
    for source, options, version in (
        ("other", ("a",), (1, 0)),
        ("source", ("b",), (1, 0)),
        ("source", ("a",), (1, 1)),
    ):
        compiler.version = version
        nvrtc.compiled(source, options, compiler)
    assert compiler.runs == before + 3 and len(list(fresh.iterdir())) == 4


def test_without_a_place_for_the_cache_it_is_compiled_each_time(fresh, caplog):
    fresh.parent.mkdir(parents=True)
    fresh.write_text("a file where the folder should be")
    compiler = CountingCompiler()
    assert nvrtc.compiled("source", (), compiler) == nvrtc.compiled("source", (), compiler)
    assert compiler.runs == 2 and "will be compiled again" in caplog.text


def test_a_kernel_is_compiled_once_by_many_threads(monkeypatch):
    built = []

    def build(wanted, device):
        time.sleep(0.05)
        built.append((wanted, device))
        return SimpleNamespace(variant=wanted)

    monkeypatch.setattr(cuda, "Kernel", build)
    monkeypatch.setattr(cuda, "LOADED_KERNELS", {})
    results = []
    threads = [
        threading.Thread(target=lambda i=i: results.append(cuda.kernel_of(variant(), i % 2)))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(device for _, device in built) == [0, 1]
    assert len({id(kernel) for kernel in results}) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.setattr(driver, "LIBRARY", "libnone.so"), "there is no NVIDIA driver: libnone.so"),
        (lambda m: m.setattr(torch.version, "cuda", None), "this PyTorch is built without CUDA"),
        (
            lambda m: m.setattr(nvrtc, "candidates", lambda _major: ()),
            "NVRTC is neither in PyTorch's packages",
        ),
        (lambda m: m.setattr(cuda, "kernel_source", lambda: "nonsense;"), "NVRTC cannot compile it"),
    ],
)
@pytest.mark.usefixtures("noting_driver", "compiler")
def test_what_cannot_be_built_is_told_once_and_the_reference_runs(monkeypatch, caplog, change, words):
    change(monkeypatch)
    nvrtc.nvrtc.cache_clear()
    with caplog.at_level(logging.INFO, "detrex"):
        for _ in range(2):
            assert words in cuda.cuda_obstacle(0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is not used, PyTorch code runs" in caplog.text


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_a_file_that_is_no_nvrtc_is_told(tmp_path, content):
    (tmp_path / "libnvrtc.so.12").write_bytes(content)
    with pytest.raises(KernelError, match=r"libnvrtc\.so\.12 cannot be loaded"):
        nvrtc.open_nvrtc(tmp_path / "libnvrtc.so.12")


@pytest.mark.usefixtures("compiler")
def test_launches_have_what_the_kernel_reads(noting_driver, use_library, make_inputs, monkeypatch):
    """Through the real compiler and a driver that takes notes."""
    monkeypatch.setitem(operator.KERNELS, "cpu", cuda)
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda _device: SimpleNamespace(cuda_stream=0x7FFF12345678)
    )
    monkeypatch.setattr(torch.Tensor, "device", SimpleNamespace(type="cpu", index=0), raising=False)
    use_library("noting")
    value, locations, weights = make_inputs(SHAPES, batch=3, queries=70, dim=32, dtype=torch.float32)
    sizes = Sizes(3, 16, 2, 32, 70, 2, 2)
    assert cuda.cuda_obstacle(0) is None
    grad = torch.ones(3, 70, 2, 32)
    output = cuda.forward(sizes, [3, 4, 2, 2], value, locations, weights)
    grads = cuda.backward(sizes, [3, 4, 2, 2], value, locations, weights, grad)
    assert noting_driver.noted_count() == 2 and noting_driver.context_depth() == 1
    tensors = [value, locations, weights]
    for i, (expected, function) in enumerate((([*tensors, output], 1), ([*tensors, grad, *grads], 2))):
        launch = noting_driver.noted(i).contents
        assert tuple(launch.grid) == (-(-140 // 16), 3, 1)  # 16 groups of 8 threads in a block
        assert tuple(launch.block) == (128, 1, 1) and launch.shared == 0
        assert (launch.stream, launch.function) == (0x7FFF12345678, function)
        raw = [bytes(argument) for argument in (ctypes.c_char * 64 * 8).from_buffer(launch.arguments)]
        pointers = [int.from_bytes(argument[:8], "little") for argument in raw[: len(expected)]]
        assert pointers == [t.data_ptr() for t in expected]
        numbers = torch.frombuffer(bytearray(raw[len(expected)][:56]), dtype=torch.int64).tolist()
        assert numbers == [3, 16, 70, 3 + (4 << 32), 0, 2 + (2 << 32), 12]


def test_a_launch_that_the_driver_refuses_is_an_error(noting_driver):  # noqa: ARG001
    module = driver.Module(b"\x7fELF", 0)
    with pytest.raises(KernelError, match="cuDeviceGet failed: error 1"):
        driver.Module(b"\x7fELF", 1)
    with pytest.raises(KernelError, match="cuModuleLoadData failed"):
        driver.Module(b"nonsense", 0)
    function = module.function("msda_forward")
    module.context = ctypes.c_void_p(0)
    with pytest.raises(KernelError, match="cuCtxPushCurrent_v2 failed"):
        module.launch(function, (1, 1), 128, 0, [])
    assert noting_driver.noted_count() == 0
