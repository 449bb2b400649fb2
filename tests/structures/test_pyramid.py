"""Flattened pyramids and padded batches."""

import pytest
import torch

from detrex.structures import PaddedImages, Pyramid


def pyramid():
    return [torch.randn(2, 6, 3, 4), torch.randn(2, 6, 2, 1)]


def test_maps_come_back_from_tokens():
    maps = pyramid()
    flat = Pyramid.from_maps(maps)
    assert flat.tokens.shape == (2, 14, 6)
    assert flat.shapes == ((3, 4), (2, 1))
    assert flat.sizes == [12, 2]
    for ours, given in zip(flat.maps(), maps, strict=True):
        assert torch.equal(ours, given)
    assert torch.equal(flat.level(1), maps[1])


def test_tokens_are_row_major():
    maps = pyramid()
    tokens = Pyramid.from_maps(maps).tokens
    assert torch.equal(tokens[1, 2 * 4 + 3], maps[0][1, :, 2, 3])
    assert torch.equal(tokens[0, 12 + 1], maps[1][0, :, 1, 0])


def test_other_tokens_keep_the_levels():
    flat = Pyramid.from_maps(pyramid())
    changed = flat.with_tokens(flat.tokens * 2)
    assert changed.shapes == flat.shapes
    assert torch.equal(changed.level(0), 2 * flat.level(0))


def test_cell_centres_by_hand():
    flat = Pyramid.from_maps([torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 1, 1)])
    expected = [(x, y) for y in (0.25, 0.75) for x in (0.125, 0.375, 0.625, 0.875)] + [(0.5, 0.5)]
    assert flat.cell_centres().tolist() == [[list(c) for c in expected]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_cell_centres_of_half_precision_tokens_are_exact(dtype):
    flat = Pyramid.from_maps([torch.zeros(1, 1, 1, 1000, dtype=dtype)])
    expected = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    torch.testing.assert_close(flat.cell_centres()[0, :, 0].double(), expected, atol=1e-7, rtol=0)


def test_images_are_padded_right_and_below():
    images = [torch.ones(3, 5, 9), torch.full((3, 7, 2), 2.0)]
    batch = PaddedImages.from_list(images, divisor=4)
    assert batch.tensor.shape == (2, 3, 8, 12)
    assert batch.padded_size == (8, 12)
    assert batch.sizes == [(5, 9), (7, 2)]
    assert torch.equal(batch.tensor[0, :, :5, :9], images[0])
    assert torch.equal(batch.tensor[1, :, :7, :2], images[1])
    assert batch.tensor.sum() == 3 * (5 * 9 + 2 * 7 * 2)


def test_sizes_that_fit_are_not_padded():
    assert PaddedImages.from_list([torch.ones(3, 64, 32)], divisor=32).padded_size == (64, 32)
    assert PaddedImages.from_list([torch.ones(3, 5, 7)]).padded_size == (5, 7)
