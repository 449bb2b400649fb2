"""Sine encodings by hand."""

import math

import pytest
import torch

from detrex.layers import box_sine_encoding, pyramid_sine_encoding, sine_encoding
from detrex.structures import Pyramid


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


def test_boxes_are_encoded_as_y_x_w_h():
    quarter = [1.0, 0.0]  # sine and cosine of a quarter turn
    encoded = box_sine_encoding(torch.tensor([0.5, 0.25, 0.75, 1.0]), 2)
    expected = [*quarter, 0, -1, -1, 0, 0, 1]
    assert encoded.tolist() == pytest.approx(expected, abs=1e-5)


def test_boxes_keep_their_leading_dimensions():
    assert box_sine_encoding(torch.rand(2, 5, 4), 16).shape == (2, 5, 64)
