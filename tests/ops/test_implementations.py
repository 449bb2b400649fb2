"""Every implementation of the operator against sums over all cells, finite differences and the reference."""

import pytest
import torch
from torch.autograd import gradcheck

from detrex.ops import multi_scale_deformable_attention as attention
from detrex.ops import multi_scale_deformable_attention_reference as reference

SHAPES = ((3, 4), (2, 2))
NAN, INF = float("nan"), float("inf")

pytestmark = pytest.mark.usefixtures("implementation")


def attention_over_all_cells(value, shapes, locations, weights):
    """Every cell counts by its distance to the point in x and y, whether near or far."""
    output, levels = 0, value.split([h * w for h, w in shapes], 1)
    for i, ((height, width), level) in enumerate(zip(shapes, levels, strict=True)):
        columns, rows = (torch.arange(side, device=value.device) for side in (width, height))
        x = locations[:, :, :, i, :, 0, None] * width - 0.5 - columns
        y = locations[:, :, :, i, :, 1, None] * height - 0.5 - rows
        near = (1 - y.abs()).clamp(min=0)[..., :, None] * (1 - x.abs()).clamp(min=0)[..., None, :]
        share = (near.flatten(-2) * weights[:, :, :, i, :, None]).sum(3)  # (B, Q, M, hw)
        output = output + torch.einsum("bqms,bsmd->bqmd", share, level)
    return output.flatten(2)


def gradients(function, shapes, inputs):
    inputs = [t.detach().requires_grad_() for t in inputs]
    output = function(inputs[0], shapes, *inputs[1:])
    weight = torch.linspace(-1, 2, output.numel(), dtype=output.dtype, device=output.device).view(
        output.shape
    )
    return [output.detach(), *torch.autograd.grad(output, inputs, weight)]


def assert_same(function, shapes, inputs, **tolerance):
    found, expected = gradients(attention, shapes, inputs), gradients(function, shapes, inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 8, 13, 32, 65])
def test_it_is_the_sum_over_all_cells(make_inputs, dim):
    inputs = make_inputs(SHAPES, dim=dim)
    assert ((inputs[1] < 0) | (inputs[1] > 1)).any() and ((inputs[1] > 0) & (inputs[1] < 1)).any()
    assert attention(inputs[0], SHAPES, *inputs[1:]).shape == (2, 3, 2 * dim)
    assert_same(attention_over_all_cells, SHAPES, inputs)


@pytest.mark.parametrize("dim", [5, 32])
def test_float32(make_inputs, dim):
    shapes = ((9, 12), (5, 6), (3, 3))
    # More than one block of queries.
    inputs = make_inputs(shapes, batch=1, queries=600, dim=dim, dtype=torch.float32)
    assert_same(reference, shapes, inputs, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_finite_differences(make_inputs):
    inputs = [t.requires_grad_() for t in make_inputs(SHAPES, batch=1, queries=2)]
    assert gradcheck(lambda v, x, w: attention(v, SHAPES, x, w), inputs)


def test_single_pixel_levels(make_inputs):
    shapes = ((1, 1), (1, 3), (2, 1))
    assert_same(attention_over_all_cells, shapes, make_inputs(shapes, queries=9))


def test_at_the_outer_border_half_of_the_cell_is_seen(device):
    value = torch.tensor([1.0, 2, 3, 4], device=device).view(1, 4, 1, 1)
    x = torch.tensor([0.0, 0.25, 0.5, 0.75, 1, -0.25, 1.25], device=device)
    locations = torch.stack([x, torch.full_like(x, 0.25)], -1).view(1, 7, 1, 1, 1, 2)
    output = attention(value, ((2, 2),), locations, torch.ones_like(locations[..., 0]))
    torch.testing.assert_close(output.flatten(), output.new_tensor([0.5, 1, 1.5, 2, 1, 0, 0]))


def test_far_outside_there_is_nothing(make_inputs):
    value, locations, weights = make_inputs(SHAPES)
    for far in (5, 1e10, -3e18, 1e30):
        output, *grads = gradients(attention, SHAPES, (value, locations + far, weights))
        assert not output.any() and not any(grad.any() for grad in grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_location_that_is_not_finite_spoils_its_query_and_head_only(make_inputs, dtype, bad):
    inputs = make_inputs(SHAPES, dtype=dtype)
    good = gradients(attention, SHAPES, inputs)
    inputs[1][1, 2, 0, 1, 1, 0] = bad
    ours = gradients(attention, SHAPES, inputs)
    assert ours[0][1, 2, :2].isnan().all() and ours[0].isnan().sum() == 2
    assert ours[2][1, 2, 0, 1, 1].isnan().any() and ours[2].isnan().sum() <= 2
    assert ours[3][1, 2, 0, 1, 1].isnan() and ours[3].isnan().sum() == 1
    ours[2][1, 2, 0, 1, 1] = good[2][1, 2, 0, 1, 1] = 0  # the reference has one NaN of two here
    for i in (0, 2, 3):
        torch.testing.assert_close(torch.where(ours[i].isnan(), good[i], ours[i]), good[i])
    assert ours[1].isfinite().all()


def test_no_location_reads_outside(make_inputs):
    """Values around the cells would show in the output: they are NaN."""
    shapes = ((2, 3), (1, 1))
    _, locations, weights = make_inputs(shapes, batch=1, queries=400, dim=4)
    memory = torch.full((1, 7 + 14, 2, 4), NAN, dtype=torch.float64, device=locations.device)
    memory[:, 7:14] = 1
    spread = torch.logspace(0, 300, 400, dtype=torch.float64, device=locations.device)[
        :, None, None, None, None
    ]
    for factor in (1.0, -1.0, spread, -spread):
        output = attention(memory[:, 7:14], shapes, locations * factor, weights)
        assert output.isfinite().all()


def test_inputs_may_lie_in_memory_in_any_order(make_inputs):
    value, locations, weights = make_inputs(SHAPES, queries=4)
    swapped = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (value, locations, weights)]
    swapped[2] = torch.stack([swapped[2], swapped[2]], -1)[..., 0]
    assert not any(t.is_contiguous() for t in swapped)
    same = zip(
        gradients(attention, SHAPES, swapped),
        gradients(attention, SHAPES, (value, locations, weights)),
        strict=True,
    )
    for one, other in same:
        torch.testing.assert_close(one, other)


def test_the_gradient_of_the_output_may_be_expanded(make_inputs):
    inputs = [t.requires_grad_() for t in make_inputs(SHAPES)]
    sums = torch.autograd.grad(attention(inputs[0], SHAPES, *inputs[1:]).sum(), inputs)
    output = attention_over_all_cells(inputs[0], SHAPES, *inputs[1:])
    for one, other in zip(sums, torch.autograd.grad(output.sum(), inputs), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("empty", [{"queries": 0}, {"batch": 0}])
def test_nothing_in_nothing_out(make_inputs, empty):
    inputs = make_inputs(SHAPES, **empty)
    output, *grads = gradients(attention, SHAPES, inputs)
    assert output.shape == (empty.get("batch", 2), empty.get("queries", 3), 4)
    for grad, tensor in zip(grads, inputs, strict=True):
        assert grad.shape == tensor.shape and not grad.any()


@pytest.mark.parametrize("dim", [3, 8])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32_and_rounded_once(make_inputs, dtype, dim):
    value, locations, weights = make_inputs(SHAPES, queries=20, dim=dim, dtype=torch.float32)
    value = value.to(dtype)
    ours = gradients(attention, SHAPES, (value, locations, weights))
    exact = gradients(reference, SHAPES, (value.float(), locations, weights))
    assert [t.dtype for t in ours] == [dtype, dtype, torch.float32, torch.float32]
    step = torch.finfo(dtype).eps
    # Half a step for a result that is rounded, and for the output's gradient that both are given.
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=step, atol=step * other.abs().max().item())
    torch.testing.assert_close(ours[0], exact[0].to(dtype), rtol=step, atol=1e-6)


def test_locations_and_weights_of_half_precision_are_those_of_float32(make_inputs):
    value, locations, weights = (t.bfloat16() for t in make_inputs(SHAPES, queries=20))
    for each in (value, value.float()):
        ours = attention(each, SHAPES, locations, weights)
        torch.testing.assert_close(ours, attention(each, SHAPES, locations.float(), weights.float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(make_inputs, dtype, device):
    value, locations, weights = make_inputs(SHAPES, dtype=torch.float32)
    value = value.to(dtype)
    with torch.autocast(device.type, torch.bfloat16):
        output = attention(value, SHAPES, locations, weights)
    assert output.dtype == dtype
    torch.testing.assert_close(output, attention(value, SHAPES, locations, weights))


def test_float64_goes_with_float64_alone(make_inputs):
    value, locations, weights = make_inputs(SHAPES)
    for inputs in ((value.float(), locations, weights), (value, locations.bfloat16(), weights)):
        with pytest.raises(ValueError, match="the dtypes of value, locations and weights"):
            attention(inputs[0], SHAPES, *inputs[1:])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_it_compiles_as_one_graph(make_inputs, backend, dynamic):
    torch.compiler.reset()
    inputs = make_inputs(SHAPES)
    compiled = torch.compile(attention, fullgraph=True, backend=backend, dynamic=dynamic)
    found, expected = gradients(compiled, SHAPES, inputs), gradients(attention, SHAPES, inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
