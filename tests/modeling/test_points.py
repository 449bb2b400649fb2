"""Where masks are compared."""

import pytest
import torch

from detrex.modeling import GridPoints, RandomPoints

CPU = torch.device("cpu")


def test_shared_points_are_uniform():
    points = RandomPoints(2000).shared(3, CPU)
    assert points.shape == (3, 2000, 2)
    assert points.min() >= 0 and points.max() <= 1
    assert not torch.equal(points[0], points[1])
    torch.testing.assert_close(points.mean((0, 1)), torch.tensor([0.5, 0.5]), atol=0.03, rtol=0)
    torch.testing.assert_close(points.var((0, 1)), torch.tensor([1 / 12, 1 / 12]), atol=0.01, rtol=0)


def ramp(masks=3):
    """Logits that cross 0 in the middle column."""
    return torch.linspace(-8, 8, 17).expand(masks, 8, 17).contiguous()


def near_the_middle(points, reach):
    return (points[..., 0] - 0.5).abs() < reach


def test_points_of_masks_prefer_the_uncertain():
    points = RandomPoints(400, oversample=3, uncertain=0.75).per_mask(ramp())
    assert points.shape == (3, 400, 2)
    assert points.min() >= 0 and points.max() <= 1
    # 300 of 1200 uniform candidates: the middle quarter, save for chance and the map's fading edges.
    assert near_the_middle(points[:, :300], 0.3).all()
    assert near_the_middle(points[:, :300], 0.15).float().mean() > 0.9
    uniform = near_the_middle(points[:, 300:], 0.25).float().mean().item()
    assert uniform == pytest.approx(0.5, abs=0.1)
    torch.testing.assert_close(points[..., 1].mean(), torch.tensor(0.5), atol=0.05, rtol=0)


def test_without_preference_all_points_are_uniform():
    points = RandomPoints(1000, uncertain=0.0).per_mask(ramp())
    assert near_the_middle(points, 0.25).float().mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("points", [RandomPoints(16), GridPoints(16)])
def test_no_masks_no_points(points):
    assert points.per_mask(torch.zeros(0, 4, 4)).shape == (0, 16, 2)


def test_points_have_no_gradient():
    logits = ramp().requires_grad_()
    assert not RandomPoints(16).per_mask(logits).requires_grad


def test_a_grid_by_hand():
    expected = [[x, y] for y in (0.25, 0.75) for x in (0.25, 0.75)]
    assert GridPoints(4).shared(2, CPU).tolist() == [expected, expected]
    assert GridPoints(4).per_mask(torch.zeros(3, 5, 7)).tolist() == [expected] * 3


def test_a_grid_needs_a_square_number():
    with pytest.raises(ValueError, match="12 is not a square"):
        GridPoints(12)
