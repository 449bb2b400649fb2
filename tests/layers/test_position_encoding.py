"""Sine encodings by hand."""

import math

import pytest
import torch

from detrex.layers import box_sine_encoding, pyramid_sine_encoding, sine_encoding
from detrex.structures import PaddedImages, Pyramid


def of_map(height, width, dim, **options):
    pyramid = Pyramid.from_maps([torch.zeros(1, 1, height, width)])
    (encoded,) = pyramid_sine_encoding(pyramid, dim, **options)
    return encoded


def test_sines_and_cosines_alternate_at_falling_frequency():
    x = 0.7
    expected = [math.sin(x), math.cos(x), math.sin(x / 100), math.cos(x / 100)]
    assert sine_encoding(torch.tensor(x), 4).tolist() == pytest.approx(expected, abs=1e-6)
    cooler = [math.sin(x), math.cos(x), math.sin(x / 4), math.cos(x / 4)]
    assert sine_encoding(torch.tensor(x), 4, temperature=16).tolist() == pytest.approx(cooler, abs=1e-6)


def test_a_map_of_two_columns():
    # y is 2 pi throughout, x is pi and then 2 pi; the y half comes first.
    encoded = of_map(1, 2, 4)
    expected = torch.tensor([[0.0, 1, 0, -1], [0, 1, 0, 1]])
    torch.testing.assert_close(encoded, expected, atol=1e-5, rtol=0)


def test_cells_of_a_map_are_row_major():
    height, width, dim = 3, 4, 8
    encoded = of_map(height, width, dim)
    assert encoded.shape == (12, dim)
    for row in range(height):
        for column in range(width):
            for half, (number, size) in enumerate([(row + 1, height), (column + 1, width)]):
                angle = number / size * 2 * math.pi
                expected = [math.sin(angle), math.cos(angle), math.sin(angle / 100), math.cos(angle / 100)]
                ours = encoded[row * width + column, 4 * half : 4 * half + 4].tolist()
                assert ours == pytest.approx(expected, abs=1e-4)


def test_every_level_by_itself():
    maps = [torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 2)]
    fine, coarse = pyramid_sine_encoding(Pyramid.from_maps(maps), 8)
    assert torch.equal(fine, of_map(3, 4, 8)) and torch.equal(coarse, of_map(2, 2, 8))


def test_the_offset_moves_cells_and_the_temperature_slows_later_channels():
    # Columns at 1/4 and 3/4 of a turn, the only row at 1/2; the second pair of channels is slower by 2.
    encoded = of_map(1, 2, 8, offset=-0.5, temperature=4.0)
    row = [0, -1, 1, 0]
    slow = math.sqrt(0.5)
    expected = torch.tensor([[*row, 1, 0, slow, slow], [*row, -1, 0, slow, -slow]])
    torch.testing.assert_close(encoded, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("offset", [0.0, -0.5])
def test_masked_padding_does_not_count(offset):
    images = PaddedImages.from_list([torch.zeros(1, 64, 96), torch.zeros(1, 48, 32)])
    pyramid = Pyramid.from_maps([torch.zeros(2, 1, 4, 6), torch.zeros(2, 1, 2, 3)], images)
    fine, coarse = pyramid_sine_encoding(pyramid, 8, offset=offset)
    assert fine.shape == (2, 24, 8) and coarse.shape == (2, 6, 8)
    torch.testing.assert_close(fine[0], of_map(4, 6, 8, offset=offset))
    unpadded = fine[1].unflatten(0, (4, 6))[:3, :2]
    torch.testing.assert_close(unpadded, of_map(3, 2, 8, offset=offset).unflatten(0, (3, 2)))
    unpadded = coarse[1].unflatten(0, (2, 3))[:, :1]
    torch.testing.assert_close(unpadded, of_map(2, 1, 8, offset=offset).unflatten(0, (2, 1)))


def test_boxes_are_encoded_as_y_x_w_h():
    quarter = [1.0, 0.0]  # sine and cosine of a quarter turn
    encoded = box_sine_encoding(torch.tensor([0.5, 0.25, 0.75, 1.0]), 2)
    expected = [*quarter, 0, -1, -1, 0, 0, 1]
    assert encoded.tolist() == pytest.approx(expected, abs=1e-5)


def test_boxes_keep_their_leading_dimensions():
    assert box_sine_encoding(torch.rand(2, 5, 4), 16).shape == (2, 5, 64)
