"""The CUDA kernel on a GPU, beyond the tests of all implementations and of the operators."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from detrex import ops_info
from detrex.layers import DeformableAttention
from detrex.ops import cuda, force_implementation
from detrex.ops import multi_scale_deformable_attention as attention
from detrex.ops import multi_scale_deformable_attention_reference as reference
from detrex.ops.operator import msda

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ((20, 30), (10, 15), (5, 8), (3, 4))
GIB = 2**30

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("forced")]


@pytest.fixture
def forced():
    with force_implementation("kernel"):
        yield


@pytest.fixture
def inputs(make_inputs):
    return make_inputs(SHAPES, queries=950, heads=8, points=4, dim=32, dtype=torch.float32)


def with_gradients(function, inputs, shapes=SHAPES):
    leaves = [t.detach().requires_grad_() for t in inputs]
    output = function(leaves[0], shapes, *leaves[1:])
    weight = torch.linspace(-1, 2, output.numel(), device=output.device).view(output.shape)
    return [output.detach(), *torch.autograd.grad(output, leaves, weight.to(output.dtype))]


def assert_same(found, expected, rtol=1e-4, atol=1e-4):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol * max(1, other.abs().max().item()))


@pytest.mark.parametrize("dim", [8, 16, 24, 32, 36, 64, 65, 128, 260])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_all_dtypes_and_numbers_of_channels(make_inputs, dtype, dim):
    sums = torch.promote_types(dtype, torch.float32)
    value, locations, weights = make_inputs(SHAPES, queries=300, heads=3, points=5, dim=dim, dtype=sums)
    mixed = value.to(dtype), locations, weights
    step = torch.finfo(dtype).eps
    found, expected = with_gradients(attention, mixed), with_gradients(reference, mixed)
    assert_same(
        found,
        expected,
        rtol=max(4 * step, 1e-10),
        atol=max(step / 4, 1e-5 if sums == torch.float32 else 1e-10),
    )


def memory_for(gibibytes):
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    if free < gibibytes * GIB:
        pytest.skip(f"needs {gibibytes} GiB of free GPU memory")


def test_values_of_more_elements_than_32_bits_count(device):
    memory_for(45)
    shapes = ((2100, 2000),)
    value = torch.zeros(2, 2100 * 2000, 8, 32, dtype=torch.bfloat16, device=device)
    assert value.numel() > 2**31
    value[1] = torch.randn(2100 * 2000, 1, 32, device=device).to(value.dtype)
    generator = torch.Generator(device).manual_seed(0)
    locations = torch.rand(2, 500, 8, 1, 4, 2, generator=generator, device=device)
    weights = torch.rand(2, 500, 8, 1, 4, generator=generator, device=device)
    ours = with_gradients(attention, (value, locations, weights), shapes)
    assert not ours[0][0].any()
    last = [t[1:] for t in (value, locations, weights)]
    leaves = [t.detach().requires_grad_() for t in last]
    output = reference(leaves[0], shapes, *leaves[1:])
    torch.testing.assert_close(ours[0][1:], output)
    weight = torch.linspace(-1, 2, 2 * output.numel(), device=device).view(2, *output.shape[1:])[1:]
    expected = torch.autograd.grad(output, leaves, weight.to(output.dtype))
    for one, other in zip(ours[1:], expected, strict=True):
        torch.testing.assert_close(one[1:], other, rtol=0.02, atol=0.02)


def test_locations_of_more_elements_than_32_bits_count(device):
    memory_for(40)
    queries = 2**30 + 77
    value = torch.tensor([2.0, 3.0], device=device).view(1, 2, 1, 1)
    locations = torch.full((1, 1, 1, 1, 1, 2), 0.5, device=device).repeat(1, queries, 1, 1, 1, 1)
    assert locations.numel() > 2**31
    locations[:, -5:, ..., 0] = 0.25  # the middle of the first cell
    output = attention(value, ((1, 2),), locations, torch.ones_like(locations[..., 0]))
    assert (output[0, :-5] == 2.5).all() and (output[0, -5:] == 2).all()


def test_a_graph_replays_forward_and_backward(inputs):
    leaves = [t.requires_grad_() for t in inputs]
    grad = torch.ones(2, 950, 256, device=inputs[0].device)

    def step():
        output = attention(leaves[0], SHAPES, *leaves[1:])
        return output, *torch.autograd.grad(output, leaves, grad)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for seed in range(2):
        torch.manual_seed(seed)
        with torch.no_grad():
            leaves[0].normal_()
            leaves[1].uniform_(-0.2, 1.2)
        graph.replay()
        assert_same(captured, step())


@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_compiles_as_one_graph_into_machine_code(inputs, mode, dtype):
    torch.compiler.reset()
    inputs = (inputs[0].to(dtype), *inputs[1:])
    compiled = torch.compile(attention, fullgraph=True, mode=mode)
    for _ in range(3):  # warm-up, capture, replay
        ours = [t.clone() for t in with_gradients(compiled, inputs)]
    assert_same(ours, with_gradients(attention, inputs), atol=torch.finfo(dtype).eps)


def test_it_runs_on_the_current_stream(inputs):
    expected = attention(inputs[0], SHAPES, *inputs[1:])
    value, stream = torch.zeros_like(inputs[0]), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # some 50 ms, in which a kernel on another stream would see zeros
        value.copy_(inputs[0])
        output = attention(value, SHAPES, *inputs[1:])
    stream.synchronize()
    torch.testing.assert_close(output, expected)


def test_nothing_waits_for_the_device(inputs):
    with_gradients(attention, inputs)
    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    try:
        torch.cuda.set_sync_debug_mode("error")
        torch.cuda._sleep(1_000_000_000)  # some 0.5 s
        leaves = [t.detach().requires_grad_() for t in inputs]
        output = attention(leaves[0], SHAPES, *leaves[1:])
        torch.autograd.grad(output, leaves, output.detach())
        assert not torch.cuda.current_stream().query()
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def test_any_thread_can_launch_it(inputs):
    expected, results = attention(inputs[0], SHAPES, *inputs[1:]), []
    threads = [
        threading.Thread(target=lambda: results.append(attention(inputs[0], SHAPES, *inputs[1:])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(torch.equal(result, expected) for result in results)


def test_tensors_may_be_on_another_device_than_the_current(inputs):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    moved = [t.to("cuda:1") for t in inputs]
    assert torch.cuda.current_device() == 0
    ours = with_gradients(attention, moved)
    assert ours[0].device.index == 1 and torch.cuda.current_device() == 0
    assert_same([t.to(inputs[0].device) for t in ours], with_gradients(attention, inputs))


def test_tensors_of_two_devices_are_refused(inputs):
    with pytest.raises(ValueError, match="must be on one device"):
        msda(inputs[0], [side for shape in SHAPES for side in shape], inputs[1].cpu(), inputs[2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_layer_under_autocast_is_close_to_float32(device, dtype):
    torch.manual_seed(0)
    layer = DeformableAttention(64, 4, 4, 4).to(device)
    tokens = torch.randn(2, sum(h * w for h, w in SHAPES), 64, device=device)
    query, points = torch.randn(2, 50, 64, device=device), torch.rand(2, 50, 2, device=device)
    exact = layer(query, points, tokens, SHAPES)
    with torch.autocast("cuda", dtype):
        output = layer(query, points, tokens, SHAPES)
    output.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.05)


def test_it_trains_under_ddp(device, tmp_path):
    dist.init_process_group("nccl", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        layer = DistributedDataParallel(DeformableAttention(64, 4, 4, 4).to(device), device_ids=[0])
        tokens = torch.randn(2, sum(h * w for h, w in SHAPES), 64, device=device)
        query, points = torch.randn(2, 50, 64, device=device), torch.rand(2, 50, 2, device=device)
        layer(query, points, tokens, SHAPES).square().mean().backward()
        assert all(p.grad.isfinite().all() for p in layer.parameters())
    finally:
        dist.destroy_process_group()


def test_the_report_names_the_device():
    with force_implementation("auto"):
        assert (
            f"on cuda:0 ({torch.cuda.get_device_name(0)}, sm_{cuda.capability_of(0)}): cuda"
            in ops_info.report()
        )


SCRIPT = """
import torch
from detrex.ops import force_implementation, multi_scale_deformable_attention as attention
shapes = ((5, 7), (3, 4), (1, 1))
for dtype in (torch.float32, torch.bfloat16):
    for dim, points in ((32, 4), (7, 3)):
        value = torch.randn(2, 48, 3, dim, device="cuda", dtype=dtype, requires_grad=True)
        locations = torch.rand(2, 45, 3, 3, points, 2, device="cuda") * 3 - 1
        locations[0, :4] = torch.tensor([float("nan"), float("inf")], device="cuda")
        locations[0, 4:8] = 1e30
        weights = torch.rand(2, 45, 3, 3, points, device="cuda", requires_grad=True)
        with force_implementation("kernel"):
            attention(value, shapes, locations.requires_grad_(), weights).sum().backward()
torch.cuda.synchronize()
"""


def run_script(tmp_path, *command):
    environment = {**os.environ, "DETREX_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )


def test_the_next_process_compiles_nothing(tmp_path):
    written = []
    for _ in range(2):
        run = run_script(tmp_path)
        assert run.returncode == 0, run.stderr
        written.append({path: path.stat().st_mtime_ns for path in (tmp_path / "kernels").iterdir()})
    assert len(written[0]) == 5  # four variants, and the small one that is tried first
    assert written[0] == written[1]


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_the_sanitizer_finds_nothing(tmp_path, tool):
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(sanitizer).is_file():
        pytest.skip("compute-sanitizer is not installed")
    only = ["--kernel-name", "kns=msda"]  # PyTorch's own kernels are not the question
    run = run_script(tmp_path, sanitizer, "--tool", tool, "--error-exitcode", "9", *only)
    if "Device not supported" in run.stdout + run.stderr:
        pytest.skip("compute-sanitizer does not work on this machine")
    assert run.returncode == 0, run.stdout + run.stderr
