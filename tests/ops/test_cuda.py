"""The arithmetic of the CUDA kernel without a GPU, and what is checked around it."""

from types import SimpleNamespace

import pytest
import torch

from detrex.ops import cuda, force_implementation
from detrex.ops import multi_scale_deformable_attention as attention
from detrex.ops import multi_scale_deformable_attention_reference as reference
from detrex.ops.cuda import Variant
from detrex.ops.library import Sizes

SHAPES = ((3, 4), (2, 2))


def variant(dtype=torch.float32, dim=32, capability=90, levels=4, points=4):
    return Variant(dtype, 8, dim, levels, points, capability)


def compare(inputs, **tolerance):
    results = []
    for function in (attention, reference):
        leaves = [t.detach().requires_grad_() for t in inputs]
        output = function(leaves[0], SHAPES, *leaves[1:])
        weight = torch.linspace(-1, 2, output.numel()).view(output.shape).to(output.dtype)
        results.append([output, *torch.autograd.grad(output, leaves, weight)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize(
    ("dtype", "dim", "capability", "points"),
    [
        (torch.float32, 32, 80, 4),
        (torch.float32, 24, 90, 3),  # threads without channels
        (torch.float32, 260, 90, 1),  # a warp goes over the channels three times
        (torch.float32, 65, 80, 16),  # two loads of points
        (torch.bfloat16, 32, 90, 10),
        (torch.bfloat16, 36, 80, 9),  # points one by one
        (torch.float16, 128, 90, 5),
        (torch.float16, 7, 80, 12),
        (torch.float64, 130, 80, 4),
    ],
)
def test_every_layout_of_threads_computes_the_same(emulate, make_inputs, dtype, dim, capability, points):
    emulate(capability)
    sums = torch.promote_types(dtype, torch.float32)
    value, locations, weights = make_inputs(SHAPES, dim=dim, points=points, dtype=sums)
    # Sums in another order, and then perhaps the next number of the value's dtype.
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 256 * torch.finfo(sums).eps}
    with force_implementation("kernel"):
        compare((value.to(dtype), locations, weights), **tolerance)


def test_threads_of_a_group_take_all_channels_by_wide_accesses():
    for dtype, wide in ((torch.float32, 4), (torch.float16, 8), (torch.bfloat16, 8), (torch.float64, 2)):
        assert variant(dtype).vector("forward") == variant(dtype).vector("backward") == wide
        assert variant(dtype).lanes("forward") * wide == 32
    assert (variant(dim=24).vector("forward"), variant(dim=24).lanes("forward")) == (4, 8)
    assert (variant(dim=7).vector("forward"), variant(dim=7).lanes("forward")) == (1, 8)
    assert (variant(dim=1024).vector("forward"), variant(dim=1024).lanes("forward")) == (4, 32)
    # Without additions of four numbers at once.
    older = variant(capability=80)
    assert (older.vector("forward"), older.vector("backward"), older.lanes("backward")) == (4, 1, 32)


def test_more_images_than_a_grid_has_rows(emulate, make_inputs, monkeypatch):
    monkeypatch.setattr(cuda, "MAX_GRID_Y", 2)
    emulate(90)
    with force_implementation("kernel"):
        compare(make_inputs(SHAPES, batch=5))


def test_without_levels_points_or_channels_there_is_nothing(emulate):
    emulate(90)
    for heads, dim, levels, points in ((2, 3, 0, 4), (2, 3, 1, 0), (2, 0, 1, 4), (0, 3, 1, 4)):
        value = torch.ones(2, levels, heads, dim, requires_grad=True)
        locations = torch.ones(2, 5, heads, levels, points, 2, requires_grad=True)
        weights = torch.ones(2, 5, heads, levels, points, requires_grad=True)
        with force_implementation("kernel"):
            output = attention(value, ((1, 1),) * levels, locations, weights)
        assert output.shape == (2, 5, heads * dim) and not output.any()
        grads = torch.autograd.grad(output.sum(), (value, locations, weights))
        assert not any(grad.any() for grad in grads)


def test_a_level_of_too_many_cells_is_refused():
    sizes = Sizes(1, 2**32, 1, 1, 1, 1, 1)
    assert cuda.size_arguments(sizes, [2**15, 2**15]).levels[0].start == 0
    with pytest.raises(ValueError, match="a level of 65536 x 65536 cells is too large"):
        cuda.size_arguments(sizes, [2**16, 2**16])


def test_gradients_are_refused_where_they_must_be_deterministic(emulate, make_inputs):
    emulate(90)
    value, locations, weights = (t.requires_grad_() for t in make_inputs(SHAPES))
    with force_implementation("kernel"):
        output = attention(value, SHAPES, locations, weights)
    try:
        torch.use_deterministic_algorithms(True)
        with pytest.raises(RuntimeError, match="not deterministic on GPUs"):
            torch.autograd.grad(output.sum(), value, retain_graph=True)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="not deterministic on GPUs"):
            assert torch.autograd.grad(output.sum(), value)[0].any()
    finally:
        torch.use_deterministic_algorithms(False)


def test_inputs_that_start_anywhere_are_aligned(emulate, make_inputs, monkeypatch):
    emulate(90)
    inputs = make_inputs(SHAPES, dim=4, dtype=torch.float32)
    shifted = [torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape) for t in inputs]
    assert all(t.data_ptr() % 16 and t.is_contiguous() for t in shifted)
    aligned, real = [], cuda.kernel_of

    def kernel_of(wanted, device):
        kernel = real(wanted, device)

        def launch(direction, sizes, shapes, tensors):
            aligned.extend(t.data_ptr() % 16 == 0 for t in tensors)
            kernel.launch(direction, sizes, shapes, tensors)

        return SimpleNamespace(launch=launch)

    monkeypatch.setattr(cuda, "kernel_of", kernel_of)
    with force_implementation("kernel"):
        compare(shifted, rtol=1e-5, atol=1e-5)
    assert len(aligned) == 4 + 7 and all(aligned)
