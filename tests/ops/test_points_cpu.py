"""Kernels that read maps and masks at points, against PyTorch code for the same."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from detrex.layers import sample_bool_masks, sample_maps, uncertain_points
from detrex.ops import force_implementation
from detrex.ops import points as kernels
from detrex.ops.library import KernelError
from detrex.structures import PackedMasks

BORDER = torch.tensor([0.0, 1.0, 0.5 / 7, 6.5 / 7, 0.5 / 5, 4.5 / 5, -0.02, 1.02, -0.5, 1.5, -1e9, 1e30])


@pytest.fixture(params=["vectors", "baseline"])
def instructions(request, library, use_library):
    use_library(dataclasses.replace(library, baseline=request.param == "baseline"))


def by_pytorch(function, *arguments):
    """What PyTorch code gives."""
    with force_implementation("reference"):
        return function(*arguments)


def made_points(rows):
    """Inside, outside and exactly on borders of a frame of 5 x 7, and more than one block of the kernels."""
    exact = torch.cartesian_prod(BORDER, BORDER).expand(rows, -1, -1)
    return torch.cat([torch.rand(rows, 500, 2) * 1.3 - 0.15, exact], 1)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("channels", [1, 4])
def test_maps_and_their_gradients(channels):
    torch.manual_seed(0)
    maps, points = torch.randn(3, channels, 5, 7).requires_grad_(), made_points(3)
    grad = torch.randn(3, channels, points.shape[1])
    found = sample_maps(maps, points)
    expected = by_pytorch(sample_maps, maps, points)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    (found,), (expected,) = (torch.autograd.grad(values, maps, grad) for values in (found, expected))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert sample_maps(maps[:, :, ::2, ::2], points[:, ::3]).shape == (3, channels, -(-points.shape[1] // 3))


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (20, 61)])
def test_masks(size):
    torch.manual_seed(0)
    masks, index, points = torch.rand(3, *size) > 0.5, torch.tensor([2, 0, 0, 1]), made_points(4)
    packed = PackedMasks.pack([masks], size)
    found = sample_bool_masks(packed, index, points)
    torch.testing.assert_close(found, by_pytorch(sample_bool_masks, packed, index, points), atol=1e-5, rtol=0)
    grid = (2 * points[:, :, None] - 1).clamp(-9, 9)
    expected = F.grid_sample(masks[index, None].float(), grid, align_corners=False)[:, 0, :, 0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("maps", [torch.randn(2, 9, 8), torch.zeros(2, 9, 8), torch.full((2, 9, 8), 1e30)])
@pytest.mark.parametrize("keep", [0, 1, 200, 599, 600])
def test_the_least_certain_of_the_candidates_are_kept(maps, keep):
    maps[0, :2, :3] = 0
    drawn = []
    for kept in (600, keep):
        torch.manual_seed(0)
        drawn.append(uncertain_points(maps, 600, kept, 700))
    candidates, points = drawn[0][:, :600], drawn[1]
    assert points.shape == (2, 700, 2) and points.min() >= 0 and points.max() < 1
    certainty = [
        sample_maps(maps[:, None], p)[:, 0].abs().sort().values for p in (candidates, points[:, :keep])
    ]
    assert torch.equal(certainty[0][:, :keep], certainty[1])
    for all_of_them, kept in zip(candidates, points[:, :keep], strict=True):
        assert len({*map(tuple, kept.tolist())} & {*map(tuple, all_of_them.tolist())}) == keep


@pytest.mark.usefixtures("instructions")
def test_random_points_are_uniform_independent_and_repeatable():
    torch.manual_seed(0)
    points = uncertain_points(torch.zeros(50, 4, 4), 0, 0, 4000)  # (50, 4000, 2)
    torch.testing.assert_close(points.mean((0, 1)), torch.full((2,), 0.5), atol=3e-3, rtol=0)
    cells = (points * 16).long()
    counts = torch.bincount((cells[..., 0] * 16 + cells[..., 1]).flatten(), minlength=256)
    expected = points.numel() / 2 / 256
    assert ((counts - expected).square() / expected).sum() < 350  # chi-squared, 255 degrees of freedom
    series = points.transpose(0, 1).flatten(1)  # (4000, 100)
    correlation = torch.corrcoef(series.t()) - torch.eye(100)
    assert correlation.abs().max() < 0.08  # 5 standard deviations
    later = torch.stack([series[:-1].flatten(), series[1:].flatten()])
    assert torch.corrcoef(later)[0, 1].abs() < 0.01
    assert len(points.flatten(0, 1).unique(dim=0)) > 0.999 * 50 * 4000
    torch.manual_seed(0)
    assert torch.equal(uncertain_points(torch.zeros(50, 4, 4), 0, 0, 4000), points)


@pytest.mark.usefixtures("instructions")
def test_what_is_not_finite_leads_nowhere():
    points = torch.tensor([[[float("nan"), 0.5], [float("inf"), 0.5], [0.5, -float("inf")], [0.5, 0.5]]])
    assert sample_maps(torch.ones(1, 1, 3, 3), points).tolist() == [[[0, 0, 0, 1]]]
    masks = PackedMasks.pack([torch.ones(1, 3, 3, dtype=torch.bool)], (3, 3))
    assert sample_bool_masks(masks, torch.tensor([0]), points).tolist() == [[0, 0, 0, 1]]
    for value in (float("nan"), float("inf")):
        maps = torch.ones(2, 4, 4)
        maps[:, 0] = value
        assert uncertain_points(maps, 300, 200, 300).isfinite().all()


def test_threads_change_no_bit(library, use_library):
    use_library(library)
    torch.manual_seed(0)
    maps, points = torch.randn(5, 1, 16, 16).requires_grad_(), torch.rand(5, 700, 2)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            drawn = uncertain_points(maps[:, 0], 900, 500, 700)
            values = sample_maps(maps, points)
            results.append([drawn, values, *torch.autograd.grad(values.square().sum(), maps)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_without_kernels_pytorch_code_runs(use_library):
    use_library(KernelError("not built"))
    maps = torch.randn(2, 8, 8)
    assert uncertain_points(maps, 90, 50, 70).shape == (2, 70, 2)
    with pytest.raises(KernelError, match="not built"):
        kernels.uncertain_points(maps, 90, 50, 70)


def test_numbers_that_do_not_fit_are_errors(library, use_library):
    use_library(library)
    masks = PackedMasks.pack([torch.ones(2, 3, 3, dtype=torch.bool)], (3, 3))
    for wrong in (2, -1):
        with pytest.raises(IndexError, match=r"masks -?\d to -?\d of 2"):
            sample_bool_masks(masks, torch.tensor([wrong]), torch.rand(1, 4, 2))
    with pytest.raises(ValueError, match="are no masks of"):
        kernels.read_packed_masks(masks.rows, (9, 3), torch.tensor([0]), torch.rand(1, 4, 2))
    with pytest.raises(ValueError, match="points must be"):
        kernels.read_maps(torch.zeros(2, 1, 3, 3), torch.rand(3, 4, 2))
    with pytest.raises(ValueError, match="80 of 60 candidates"):
        kernels.uncertain_points(torch.zeros(2, 3, 3), 60, 80, 100)
    with pytest.raises(ValueError, match="a map of 2 x 1073741824"):
        kernels.read_maps(torch.zeros(1, 1, 1, 1).expand(1, 1, 2, 2**30), torch.rand(1, 4, 2))
    assert sample_maps(torch.zeros(0, 1, 3, 3), torch.rand(0, 4, 2)).shape == (0, 1, 4)
    assert uncertain_points(torch.zeros(0, 3, 3), 9, 5, 7).shape == (0, 7, 2)
