"""Linear layers against PyTorch's own, in double precision, and where they leave oneDNN alone."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from detrex.layers import MLP, Linear
from detrex.layers import products as products_module
from detrex.layers.products import LEAST_WORK, two_layers

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


def chained(x, first, second):
    """Output and gradients of both layers, by PyTorch and in double precision."""
    tensors = (x, first.weight, first.bias, second.weight, second.bias)
    x, w1, b1, w2, b2 = (t.detach().double().requires_grad_() for t in tensors)
    output = F.linear(F.linear(x, w1, b1).relu(), w2, b2)
    return [output, *torch.autograd.grad(output.square().sum(), (x, w1, b1, w2, b2))]


# Fewer rows than a piece, the least that is cut, a last piece of its own size, and a transposed input.
@pytest.mark.parametrize("shape", [(2, 3), (4, 16), (2, 37), (5, 3, 21)])
@pytest.mark.parametrize("out", [DIM // 2, 2 * DIM])
@pytest.mark.parametrize("turned", [False, True])
def test_two_layers_in_pieces(monkeypatch, shape, out, turned):
    monkeypatch.setattr(products_module, "PIECE", 16 * 64)
    monkeypatch.setattr(products_module, "LEAST_WORK", 0)
    first, second = Linear(DIM, 64, relu=True), Linear(64, out)
    x = torch.randn(*shape, DIM)
    x = (x.transpose(0, 1).contiguous().transpose(0, 1) if turned else x).requires_grad_()
    output = two_layers(x, first, second)
    wanted = (x, first.weight, first.bias, second.weight, second.bias)
    found = [output, *torch.autograd.grad(output.square().sum(), wanted)]
    with torch.no_grad():
        found.append(two_layers(x, first, second))
    expected = chained(x, first, second)
    for ours, theirs in zip(found, [*expected, expected[0]], strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-3, rtol=1e-4)


@needs_onednn
def test_the_hidden_layer_comes_in_pieces(monkeypatch):
    monkeypatch.setattr(products_module, "PIECE", 50 * 2 * DIM)
    first, second = Linear(DIM, 2 * DIM, relu=True), Linear(2 * DIM, DIM)
    x = torch.randn(2, 150, DIM, requires_grad=True)
    assert len(products(lambda: two_layers(x, first, second))) == 2 * 6
    assert len(products(lambda: two_layers(x, first, second).sum().backward())) == 2 * 6 + 5 * 6
    few = x[:, :99]
    assert len(products(lambda: two_layers(few, first, second))) == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert two_layers(x, first, second).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        assert not products(lambda: two_layers(x, first, second))


def test_two_layers_in_pieces_computed_again(monkeypatch):
    monkeypatch.setattr(products_module, "PIECE", 50 * 2 * DIM)
    first, second = Linear(DIM, 2 * DIM, relu=True), Linear(2 * DIM, DIM)
    x = torch.randn(2, 150, DIM, requires_grad=True)
    output = checkpoint(two_layers, x, first, second, use_reentrant=False)
    wanted = (x, first.weight, first.bias, second.weight, second.bias)
    found = [output, *torch.autograd.grad(output.square().sum(), wanted)]
    for ours, theirs in zip(found, chained(x, first, second), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-3, rtol=1e-4)


def test_layers_that_are_more_than_products_are_called(monkeypatch):
    monkeypatch.setattr(products_module, "PIECE", 50 * 2 * DIM)
    first, second = Linear(DIM, 2 * DIM, relu=True), Linear(2 * DIM, DIM)
    x, seen = torch.randn(2, 150, DIM), []
    expected = chained(x, first, second)[0]
    hook = second.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(two_layers(x, first, second).double(), expected, atol=1e-3, rtol=1e-4)
    assert seen
    hook.remove()
    other = torch.nn.Sequential(torch.nn.Linear(DIM, 2 * DIM), torch.nn.ReLU())
    other[0].load_state_dict(first.state_dict())
    torch.testing.assert_close(two_layers(x, other, second).double(), expected, atol=1e-3, rtol=1e-4)
    assert len(seen) == 1


def test_only_what_is_needed_gets_a_gradient(monkeypatch):
    monkeypatch.setattr(products_module, "PIECE", 50 * 2 * DIM)
    first, second = Linear(DIM, 2 * DIM, relu=True), Linear(2 * DIM, DIM)
    second.weight.requires_grad_(False)
    x = torch.randn(2, 150, DIM)
    two_layers(x, first, second).sum().backward()
    assert x.grad is None and second.weight.grad is None
    assert first.weight.grad is not None and second.bias.grad is not None


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
