"""Deformable attention from offsets and logits in one pass against the layer's usual steps."""

import dataclasses

import pytest
import torch

from detrex.layers import DeformableAttention
from detrex.ops import attend_around, force_implementation
from detrex.ops.library import KernelError
from detrex.structures import Pyramid

SHAPES = ((6, 9), (3, 5))
TOKENS = sum(h * w for h, w in SHAPES)


@pytest.fixture(params=["kernel", "baseline"])
def use_kernel(request, library, use_library):
    use_library(dataclasses.replace(library, baseline=request.param == "baseline"))


def attention(points=4, dim=64):
    torch.manual_seed(0)
    layer = DeformableAttention(dim, num_heads=2, num_levels=2, num_points=points).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return layer


def memory(batch, dim=64):
    return Pyramid.from_maps([torch.randn(batch, dim, *shape) for shape in SHAPES])


def both(layer, *inputs):
    with torch.inference_mode():
        with force_implementation("reference"):
            expected = layer(*inputs)
        return layer(*inputs), expected


@pytest.mark.usefixtures("use_kernel")
@pytest.mark.parametrize("reference", [(1, 7, 1, 2), (2, 7, 2, 2), (2, 7, 1, 4), (1, 7, 2, 4)])
@pytest.mark.parametrize(("points", "dim"), [(4, 64), (3, 48)])  # with channels in registers, and without
def test_it_is_the_layer(reference, points, dim):
    layer, tokens = attention(points, dim), memory(2, dim)
    places = torch.rand(reference) * 1.2 - 0.1
    found, expected = both(layer, torch.randn(2, 7, dim), places, tokens)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    # Transposed places, and queries as many as tokens, for which values are laid out by head.
    places = torch.rand(*reference[::3], TOKENS, reference[2]).permute(0, 2, 3, 1)
    found, expected = both(layer, torch.randn(2, TOKENS, dim), places, tokens)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("use_kernel")
def test_logits_far_apart_and_places_that_are_none():
    layer, tokens = attention(), memory(1)
    torch.nn.init.normal_(layer.attention_weights.weight, std=50)
    places = torch.rand(1, 7, 1, 2)
    places[0, 3] = torch.nan
    found, expected = both(layer, torch.randn(1, 7, 64), places, tokens)
    assert found[0, 3].isnan().all()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3, equal_nan=True)


@pytest.mark.usefixtures("use_kernel")
def test_lower_precision_is_near():
    layer, tokens = attention(), memory(1)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = both(layer, torch.randn(1, 7, 64), torch.rand(1, 7, 1, 2), tokens)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.05)


def test_where_the_usual_steps_remain(library, use_library):
    use_library(library)
    shapes = (1, 5, 2, 2, 4)
    value = torch.randn(1, TOKENS, 2, 8)
    inputs = [SHAPES, torch.rand(1, 5, 1, 2), torch.randn(*shapes, 2), torch.randn(shapes)]
    with torch.no_grad():
        assert attend_around(value, *inputs) is not None
        assert attend_around(value.double(), *inputs) is None
        many = [*inputs[:2], torch.randn(1, 5, 2, 2, 70, 2), torch.randn(1, 5, 2, 2, 70)]
        assert attend_around(value, *many) is None
        with pytest.raises(ValueError, match="does not fit"):
            attend_around(value, SHAPES, torch.rand(1, 4, 1, 2), *inputs[2:])
        with pytest.raises(ValueError, match="cells"):
            attend_around(value[:, 1:], *inputs)
    assert attend_around(value, *inputs) is None  # gradients are wanted
    use_library(KernelError("there is none"))
    with torch.no_grad():
        assert attend_around(value, *inputs) is None
