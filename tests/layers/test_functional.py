"""Small functions of tensors against torch's own and hand-computed numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from detrex.layers import MLP, FeedForward, inverse_sigmoid, sample_bool_masks, sample_maps
from detrex.structures import PackedMasks


def test_inverse_sigmoid_undoes_sigmoid():
    x = torch.linspace(-11, 11, 45, dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(x.sigmoid()), x)
    p = torch.rand(20) * 0.98 + 0.01
    torch.testing.assert_close(inverse_sigmoid(p), torch.logit(p))


def test_inverse_sigmoid_is_bounded():
    ends = inverse_sigmoid(torch.tensor([-1.0, 0, 1e-7, 1, 2]))
    limit = math.log(1e5)
    assert ends.tolist() == pytest.approx([-limit, -limit, -limit, limit, limit], rel=1e-5)
    assert inverse_sigmoid(torch.tensor([0.0]), eps=1e-3).item() == pytest.approx(-math.log(1e3), rel=1e-5)


def test_sampled_maps_at_cell_centres_corners_and_outside():
    maps = torch.arange(6.0).view(1, 1, 2, 3)
    points = torch.tensor([[0.5 / 3, 0.25], [2.5 / 3, 0.75], [0.5, 0.5], [0.0, 0.0], [1.0, 1.0], [1.4, 0.5]])
    # Between all of the middle column; a quarter of the corner's cell at the frame's corners.
    expected = [0, 5, 2.5, 0, 5 / 4, 0]
    assert sample_maps(maps, points[None]).flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_gradients_of_sampled_maps():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    points = (torch.rand(2, 5, 2, dtype=torch.float64) * 1.4 - 0.2).requires_grad_()
    assert gradcheck(sample_maps, (maps, points))


def test_sampled_maps_have_the_dtype_of_the_maps():
    assert (
        sample_maps(torch.zeros(1, 1, 2, 2, dtype=torch.float64), torch.rand(1, 3, 2)).dtype == torch.float64
    )


def test_sampled_bool_masks_are_grid_samples_of_float_masks():
    torch.manual_seed(0)
    masks = torch.rand(3, 5, 7) > 0.5
    index = torch.tensor([2, 0, 0, 1])
    border = torch.tensor([0.0, 1.0, 0.5 / 7, 6.5 / 7, 0.5 / 5, 4.5 / 5, -0.02, 1.02, -0.5, 1.5])
    exact = torch.cartesian_prod(border, border)
    points = torch.cat([torch.rand(4, 200, 2) * 1.3 - 0.15, exact.expand(4, -1, -1)], 1)
    grid = 2 * points[:, :, None] - 1
    expected = F.grid_sample(masks[index, None].float(), grid, align_corners=False)[:, 0, :, 0]
    ours = sample_bool_masks(PackedMasks.pack([masks], (5, 7)), index, points)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert ours.min() >= 0 and ours.max() <= 1 + 1e-6


@pytest.mark.parametrize("masks", [0, 2])
def test_no_rows_of_points(masks):
    empty = sample_bool_masks(
        PackedMasks.pack([torch.zeros(masks, 3, 4, dtype=torch.bool)], (3, 4)),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 9, 2),
    )
    assert empty.shape == (0, 9)


def test_mlp_has_relu_between_its_layers_only():
    mlp = MLP(1, 2, 1, 2)
    with torch.no_grad():
        for layer in mlp.layers:
            layer.bias.zero_()
        mlp.layers[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        mlp.layers[1].weight.copy_(torch.tensor([[-2.0, -3.0]]))
    assert mlp(torch.tensor([[4.0], [-5.0]])).flatten().tolist() == [-8, -15]
    assert [tuple(layer.weight.shape) for layer in MLP(3, 8, 5, 3).layers] == [(8, 3), (8, 8), (5, 8)]


def test_feed_forward_without_weights_is_the_norm():
    layer = FeedForward(8, 16)
    torch.nn.init.zeros_(layer.linear2.weight)
    torch.nn.init.zeros_(layer.linear2.bias)
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(layer(x), F.layer_norm(x, (8,)))
