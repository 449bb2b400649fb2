"""Linear layers against PyTorch's own, in double precision, and where they leave oneDNN alone."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from detrex.layers import MLP, Linear
from detrex.layers.products import LEAST_WORK

ROWS, DIM = 300, 128
LARGE = (2, ROWS, DIM)
assert 2 * ROWS * DIM * DIM > LEAST_WORK


def products(function):
    """The operators of oneDNN's matrix products that ``function()`` runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function()
    return [event.name for event in profile.events() if event.name == "mkldnn::_linear_pointwise"]


def doubled(layer, x):
    """Output and gradients of the sum of squares, computed apart and in double precision."""
    x, weight, bias = (t.detach().double().requires_grad_() for t in (x, layer.weight, layer.bias))
    output = x @ weight.T + bias
    output = output.clamp(min=0) if layer.relu else output
    return [output, *torch.autograd.grad(output.square().sum(), (x, weight, bias))]


needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN in PyTorch")


@pytest.mark.parametrize("out", [DIM // 2, 2 * DIM])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [LARGE, (2 * ROWS, DIM), (3, DIM), (DIM,), (0, DIM)])
def test_outputs_and_gradients(out, relu, shape):
    layer, x = Linear(DIM, out, relu=relu), torch.randn(shape, requires_grad=True)
    output = layer(x)
    found = [output, *torch.autograd.grad(output.square().sum(), (x, layer.weight, layer.bias))]
    with torch.no_grad():
        found.append(layer(x))
    expected = doubled(layer, x)
    for ours, theirs in zip(found, [*expected, expected[0]], strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-3, rtol=1e-4)


def test_inputs_of_any_strides_and_no_bias():
    layer = Linear(DIM, DIM, bias=False)
    x = torch.randn(DIM, ROWS, 2).permute(2, 1, 0)
    torch.testing.assert_close(layer(x), F.linear(x.contiguous(), layer.weight))


def test_frozen_weights_and_inputs_get_no_gradient():
    layer, x = Linear(DIM, DIM, relu=True), torch.randn(LARGE)
    layer.weight.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None


@needs_onednn
def test_large_products_go_to_onednn_forward_and_backward():
    layer, x = Linear(DIM, DIM), torch.randn(LARGE, requires_grad=True)
    assert len(products(lambda: layer(x).sum().backward())) == 3
    assert not products(lambda: layer(x[0, :3]))


@needs_onednn
def test_onednn_is_left_out_on_demand():
    layer, x = Linear(DIM, DIM), torch.randn(LARGE)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not products(lambda: layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64


def test_tracing_and_counting_see_the_usual_operator():
    layer, x = Linear(DIM, DIM, relu=True), torch.randn(LARGE)
    exported = torch.export.export(layer, (x,))
    assert "_linear_pointwise" not in str(exported.graph)
    torch.testing.assert_close(exported.module()(x), layer(x))
    assert "linear_pointwise" not in str(torch.jit.trace(layer, (x,)).graph)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 2 * x.numel() * DIM


def test_mlp_ends_without_relu():
    mlp = MLP(DIM, DIM, DIM, 3)
    x = torch.randn(5, DIM)
    first, second, last = mlp.layers
    expected = last(
        F.relu(F.linear(F.relu(F.linear(x, first.weight, first.bias)), second.weight, second.bias))
    )
    torch.testing.assert_close(mlp(x), expected)
    assert mlp(x).min() < 0
