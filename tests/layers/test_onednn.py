"""Layers through oneDNN against PyTorch's own, in double precision, and where they leave oneDNN alone."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from detrex.layers import MLP, FeedForward, linear, onednn, use_onednn
from detrex.layers.onednn import LEAST_WORK, onednn_works
from detrex.runtime import chunking

ROWS, DIM = 300, 128
LARGE = (2, ROWS, DIM)
assert 2 * ROWS * DIM * DIM > LEAST_WORK
needs_onednn = pytest.mark.skipif(not onednn_works(), reason="this PyTorch has no linear layers of oneDNN")


def exchanged(layer):
    use_onednn(layer)
    return layer


def products(function):
    """The operators of oneDNN's matrix products that ``function()`` runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function()
    return [event.name for event in profile.events() if event.name == "mkldnn::_linear_pointwise"]


def with_gradients(function, *tensors):
    """What a function returns, and the gradients of the sum of its squares."""
    output = function(*tensors)
    return [output, *torch.autograd.grad(output.square().sum(), tensors)]


def doubles(*tensors):
    return [t.detach().double().requires_grad_() for t in tensors]


def assert_agree(found, expected):
    for output, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(output.double(), reference, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("out", [DIM // 2, 2 * DIM])
@pytest.mark.parametrize("shape", [LARGE, (2 * ROWS, DIM), (3, DIM), (DIM,), (0, DIM)])
def test_outputs_and_gradients(out, shape):
    layer, x = exchanged(nn.Linear(DIM, out)), torch.randn(shape, requires_grad=True)
    tensors = x, layer.weight, layer.bias
    output = layer(x)
    found = [output, *torch.autograd.grad(output.square().sum(), tensors)]
    expected = with_gradients(F.linear, *doubles(*tensors))
    assert_agree(found, expected)
    with torch.no_grad():
        assert_agree([layer(x), linear(x, layer.weight, layer.bias)], [expected[0]] * 2)


def test_inputs_of_any_strides_and_no_bias():
    layer = exchanged(nn.Linear(DIM, DIM, bias=False))
    x = torch.randn(DIM, ROWS, 2).permute(2, 1, 0)
    torch.testing.assert_close(layer(x), F.linear(x.contiguous(), layer.weight))


def test_frozen_weights_and_inputs_get_no_gradient():
    layer, x = exchanged(nn.Linear(DIM, DIM)), torch.randn(LARGE)
    layer.weight.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None


@pytest.mark.parametrize("shape", [LARGE, (2 * ROWS, DIM)])
def test_outputs_may_be_changed_in_place(shape):
    layer, x = exchanged(nn.Linear(DIM, DIM)), torch.randn(shape)
    layer(x).relu_().sum().backward()
    found = layer.weight.grad.clone()
    expected = torch.autograd.grad(F.linear(x, layer.weight, layer.bias).relu().sum(), layer.weight)[0]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


class OtherLinear(nn.Linear):
    """Some library's layer with a meaning of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_model_keeps_its_parameters_hooks_and_other_layers():
    shared = nn.Linear(DIM, DIM)
    model = nn.ModuleDict({"a": shared, "b": nn.ModuleList([shared]), "other": OtherLinear(DIM, DIM)})
    model["attention"] = nn.MultiheadAttention(DIM, 2)
    model["feed_forward"] = FeedForward(DIM, 2 * DIM)
    before, seen = dict(model.named_parameters()), []
    shared.register_forward_hook(lambda *_: seen.append(1))
    use_onednn(model)
    use_onednn(model)  # a second time changes nothing
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is parameter for name, parameter in before.items())
    assert model["a"] is model["b"][0] is shared
    assert type(model["other"]) is OtherLinear
    assert not isinstance(model["attention"].out_proj, onednn.OneDNNLinear)
    assert isinstance(shared, nn.Linear)
    shared(torch.randn(LARGE))
    assert seen == [1]


@needs_onednn
def test_large_products_go_to_onednn_forward_and_backward():
    layer, x = nn.Linear(DIM, DIM), torch.randn(LARGE, requires_grad=True)
    assert not products(lambda: layer(x).sum().backward())
    use_onednn(layer)
    assert len(products(lambda: layer(x).sum().backward())) == 3
    assert len(products(lambda: linear(x, layer.weight))) == 1
    assert not products(lambda: layer(x[0, :3]))


@needs_onednn
def test_onednn_is_left_out_on_demand():
    layer, x = exchanged(nn.Linear(DIM, DIM)), torch.randn(LARGE)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not products(lambda: layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64


def other_numbers(x, weight, bias, *_):
    return F.linear(x, weight, bias) + 1


def other_arguments(x, weight):
    return F.linear(x, weight)


def refuses(*_):
    raise NotImplementedError("not on this processor")


@pytest.mark.parametrize("operator", [None, other_numbers, other_arguments, refuses])
def test_a_pytorch_whose_operator_is_gone_or_changed(monkeypatch, operator):
    """A later PyTorch may drop or change the operator, which is private: plain layers take its place."""
    namespace = SimpleNamespace() if operator is None else SimpleNamespace(_linear_pointwise=operator)
    onednn_works.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", namespace)
    try:
        model, early = FeedForward(DIM, 64 * DIM), onednn.OneDNNLinear(DIM, DIM)
        assert not use_onednn(model)
        assert [type(m) for m in (model, model.linear1)] == [FeedForward, nn.Linear]
        x = torch.randn(4, ROWS, DIM, requires_grad=True)
        assert model(x).shape == x.shape
        torch.testing.assert_close(linear(x, early.weight), F.linear(x, early.weight))
        early(x).sum().backward()
        assert x.grad is not None
    finally:
        onednn_works.cache_clear()


def feed_forward(hidden, out=DIM, **options):
    """A feed-forward network whose layers are exchanged, and whose output is that of its layers alone."""
    made = FeedForward(DIM, hidden, **options)
    made.linear2 = nn.Linear(hidden, out)
    return exchanged(made)


def parameters_of(layer):
    return layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias


def two_layers(x, weight1, bias1, weight2, bias2):
    return F.linear(F.linear(x, weight1, bias1).relu(), weight2, bias2)


# Fewer rows than a block, the least that is divided, a last block of its own size, and a transposed input.
@pytest.mark.parametrize("shape", [(2, 3), (4, 16), (2, 37), (5, 3, 21)])
@pytest.mark.parametrize("out", [DIM // 2, 2 * DIM])
@pytest.mark.parametrize("transposed", [False, True])
def test_feed_forward_in_blocks(monkeypatch, shape, out, transposed):
    monkeypatch.setattr(chunking, "CPU_BYTES", 4 * 16 * 64)
    monkeypatch.setattr(onednn, "LEAST_WORK", 0)
    layer = feed_forward(64, out)
    x = torch.randn(*shape, DIM)
    x = (x.transpose(0, 1).contiguous().transpose(0, 1) if transposed else x).requires_grad_()
    output = layer.transform(x)
    tensors = x, *parameters_of(layer)
    found = [output, *torch.autograd.grad(output.square().sum(), tensors)]
    expected = with_gradients(two_layers, *doubles(*tensors))
    assert_agree(found, expected)
    with torch.no_grad():
        assert_agree([layer.transform(x)], expected[:1])


@needs_onednn
def test_the_hidden_layer_comes_in_blocks_without_gradients(monkeypatch):
    monkeypatch.setattr(chunking, "CPU_BYTES", 4 * 50 * 2 * DIM)
    layer = feed_forward(2 * DIM)
    x = torch.randn(2, 150, DIM, requires_grad=True)
    assert len(products(lambda: layer.transform(x).sum().backward())) == 2 + 4  # kept, not computed again
    with torch.no_grad():
        assert len(products(lambda: layer(x))) == 2 * 6
        assert len(products(lambda: layer(x[:, :99]))) == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.transform(x).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        assert not products(lambda: layer(x))


def test_layers_computed_again(monkeypatch):
    monkeypatch.setattr(chunking, "CPU_BYTES", 4 * 50 * 2 * DIM)
    layer = feed_forward(2 * DIM)
    x = torch.randn(2, 150, DIM, requires_grad=True)
    output = checkpoint(layer.transform, x, use_reentrant=False)
    tensors = x, *parameters_of(layer)
    found = [output, *torch.autograd.grad(output.square().sum(), tensors)]
    assert_agree(found, with_gradients(two_layers, *doubles(*tensors)))


@pytest.mark.parametrize("options", [{}, {"prelu": True}, {"dropout": 1.0}])
def test_what_is_more_than_two_products_is_computed(monkeypatch, options):
    """Hooks, a learned leak and dropout work as in a plain network, however large the hidden layer is."""
    monkeypatch.setattr(chunking, "CPU_BYTES", 4 * 50 * 2 * DIM)
    layer, seen = feed_forward(2 * DIM, **options), []
    layer.linear2.register_forward_hook(lambda *_: seen.append(1))
    x = torch.randn(2, 150, DIM)
    hidden = layer.dropout(layer.activation(F.linear(x, layer.linear1.weight, layer.linear1.bias)))
    torch.testing.assert_close(layer.transform(x), layer.linear2(hidden), atol=1e-4, rtol=1e-4)
    assert len(seen) == 2


def test_only_what_is_needed_gets_a_gradient(monkeypatch):
    monkeypatch.setattr(chunking, "CPU_BYTES", 4 * 50 * 2 * DIM)
    layer = feed_forward(2 * DIM)
    layer.linear2.weight.requires_grad_(False)
    x = torch.randn(2, 150, DIM)
    layer.transform(x).sum().backward()
    assert x.grad is None and layer.linear2.weight.grad is None
    assert layer.linear1.weight.grad is not None and layer.linear2.bias.grad is not None


def test_tracing_and_counting_see_the_usual_operator():
    layer, x = exchanged(nn.Linear(DIM, DIM)), torch.randn(LARGE)
    exported = torch.export.export(layer, (x,))
    assert "_linear_pointwise" not in str(exported.graph)
    torch.testing.assert_close(exported.module()(x), layer(x))
    assert "linear_pointwise" not in str(torch.jit.trace(layer, (x,)).graph)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 2 * x.numel() * DIM


def test_feed_forward_is_exported_for_any_number_of_rows():
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = feed_forward(2 * DIM)

        def forward(self, x, kept):
            return self.layer(x[kept])

    x = torch.randn(20, DIM)
    exported = torch.export.export(
        Kept(), (x, x[:, 0] > 0), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},) * 2
    )
    assert exported.module()(torch.randn(30, DIM), torch.arange(30) > 9).shape == (20, DIM)


def test_mlp_ends_without_relu():
    mlp = MLP(DIM, DIM, DIM, 3)
    x = torch.randn(5, DIM)
    first, second, last = mlp.layers
    expected = last(F.relu(second(F.relu(first(x)))))
    torch.testing.assert_close(mlp(x), expected)
    assert mlp(x).min() < 0
