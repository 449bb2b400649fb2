"""The layer of deformable attention against loops over every cell and the paper's start."""

import math

import pytest
import torch

from detrex.layers import DeformableAttention
from detrex.structures import Pyramid

SHAPES = ((3, 4), (2, 2))


def tent(distance):
    return max(0.0, 1.0 - abs(distance))


def attention_by_loops(value, locations, weights):
    batch, queries, heads, levels, points, _ = locations.shape
    output = torch.zeros(batch, queries, heads, value.shape[-1], dtype=value.dtype)
    for b, q, m in ((b, q, m) for b in range(batch) for q in range(queries) for m in range(heads)):
        start = 0
        for i in range(levels):
            height, width = SHAPES[i]
            for p in range(points):
                x = locations[b, q, m, i, p, 0].item() * width - 0.5
                y = locations[b, q, m, i, p, 1].item() * height - 0.5
                for row in range(height):
                    for column in range(width):
                        bilinear = tent(x - column) * tent(y - row)
                        cell = value[b, start + row * width + column, m]
                        output[b, q, m] += weights[b, q, m, i, p] * bilinear * cell
            start += height * width
    return output.flatten(2)


def test_new_modules_look_around_with_equal_weights():
    module = DeformableAttention(dim=16, num_heads=8, num_levels=2, num_points=3)
    assert not module.sampling_offsets.weight.any()
    assert not module.attention_weights.weight.any() and not module.attention_weights.bias.any()
    offsets = module.sampling_offsets.bias.view(8, 2, 3, 2)
    compass = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, (x, y) in enumerate(compass):
        for point in range(3):
            expected = torch.tensor([x, y]) * (point + 1.0)
            for level in range(2):
                torch.testing.assert_close(offsets[head, level, point], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("heads", [1, 3, 6])
def test_offsets_start_on_squares_whatever_the_number_of_heads(heads):
    module = DeformableAttention(dim=12, num_heads=heads, num_levels=1, num_points=4)
    reach = module.sampling_offsets.bias.view(heads, 4, 2).abs().amax(-1)
    torch.testing.assert_close(reach, torch.arange(1.0, 5).expand(heads, 4))


def identity_module(dim=4, heads=2, points=2):
    """A module whose projections pass values through."""
    module = DeformableAttention(dim, heads, len(SHAPES), points).double()
    with torch.no_grad():
        for projection in (module.value_proj, module.output_proj):
            projection.weight.copy_(torch.eye(dim))
    return module


@pytest.mark.parametrize("reference_dim", [2, 4])
def test_offsets_are_in_cells_of_points_and_fractions_of_boxes(reference_dim):
    torch.manual_seed(0)
    module = identity_module()
    heads, points = 2, 2
    query, tokens = torch.randn(1, 3, 4).double(), torch.randn(1, 16, 4).double()
    reference = 0.2 + 0.6 * torch.rand(1, 3, reference_dim).double()
    ours = module(query, reference[:, :, None], Pyramid(tokens, SHAPES))

    locations = torch.zeros(1, 3, heads, len(SHAPES), points, 2).double()
    for q in range(3):
        for m, direction in enumerate([(1, 0), (-1, 0)]):
            for level, (height, width) in enumerate(SHAPES):
                for p in range(points):
                    step = [d * (p + 1) for d in direction]
                    if reference_dim == 2:
                        moved = step[0] / width, step[1] / height
                    else:
                        box = reference[0, q, 2:].tolist()
                        moved = tuple(s / points * side / 2 for s, side in zip(step, box, strict=True))
                    locations[0, q, m, level, p] = reference[0, q, :2] + torch.tensor(moved)
    weights = torch.full((1, 3, heads, len(SHAPES), points), 1 / 4).double()
    expected = attention_by_loops(tokens.unflatten(-1, (heads, 2)), locations, weights)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)


def test_constant_values_stay_constant_inside():
    module = identity_module()
    tokens = torch.tensor([1.0, 2, 3, 4]).double().expand(1, 16, 4)
    reference = torch.tensor([0.5, 0.5, 1e-3, 1e-3]).double().expand(1, 2, 4)
    output = module(torch.randn(1, 2, 4).double(), reference[:, :, None], Pyramid(tokens, SHAPES))
    torch.testing.assert_close(output, tokens[:, :2])


def test_heads_must_divide_the_hidden_size():
    with pytest.raises(ValueError, match=r"30.*4"):
        DeformableAttention(dim=30, num_heads=4)


def test_projections_start_as_xavier():
    torch.manual_seed(0)
    module = DeformableAttention(64, 8, 4, 4)
    limit = math.sqrt(6 / 128)
    for projection in (module.value_proj, module.output_proj):
        assert not projection.bias.any()
        assert 0.95 * limit < projection.weight.abs().max() <= limit
