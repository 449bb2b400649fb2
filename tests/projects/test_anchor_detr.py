"""Anchor DETR (arXiv 2109.07107): points with patterns, and places along each axis."""

import math

import torch

from detrex.layers import sine_encoding
from detrex.modeling import PredictionHeads
from detrex.modeling.queries import QueryState
from detrex.structures import PaddedImages, Pyramid
from projects.anchor_detr.model import PatternPoints, PointPosition, RowColumnEncoder

DIM = 32


def test_every_point_comes_with_every_pattern_the_first_pattern_first():
    queries = PatternPoints(4, 3, DIM)
    (group,) = queries(Pyramid.from_maps([torch.zeros(2, DIM, 2, 2)]), None, PredictionHeads(DIM, 3)).groups
    assert group.content.shape == (2, 12, DIM) and group.reference.shape == (2, 12, 2)
    for query in range(12):
        torch.testing.assert_close(group.content[1, query], queries.pattern.weight[query // 4])
        torch.testing.assert_close(group.reference[0, query], queries.point.weight[query % 4])
    assert 0 <= queries.point.weight.min() and queries.point.weight.max() <= 1


def test_points_outside_of_the_image_are_encoded_as_they_are():
    position = PointPosition(DIM)
    points = torch.tensor([[[0.3, 1.4], [-0.2, 0.5]]])
    found = position(QueryState(0, torch.zeros(1, 2, DIM), points, None, None))
    x, y = (position.axis(sine_encoding(2 * math.pi * points[..., i], DIM)) for i in range(2))
    torch.testing.assert_close(found.spatial, torch.cat([x, y], -1))
    plane = [sine_encoding(2 * math.pi * points[..., i], DIM // 2) for i in (1, 0)]
    torch.testing.assert_close(found.encoding, position.plane(torch.cat(plane, -1)))


def test_places_of_tokens_count_from_the_image_without_padding():
    """The second image has 2 of 4 rows and 3 of 6 columns; places in padding are that of the last cell."""
    encoder = RowColumnEncoder({32: 4}, DIM, 16, 2, num_layers=0)
    images = PaddedImages(torch.zeros(2, 3, 128, 192), [(128, 192), (64, 96)])
    pyramid = encoder({32: torch.zeros(2, 4, 4, 6)}, images, lambda places: places)
    x, y = pyramid.position.unflatten(1, (4, 6)).unbind(-1)
    torch.testing.assert_close(x[0, 2], (torch.arange(6) + 0.5) / 6)
    torch.testing.assert_close(y[0, :, 1], (torch.arange(4) + 0.5) / 4)
    torch.testing.assert_close(x[1, 3], torch.tensor([0.5, 1.5, 2.5, 2.5, 2.5, 2.5]) / 3)
    torch.testing.assert_close(y[1, :, 5], torch.tensor([0.5, 1.5, 1.5, 1.5]) / 2)
    assert encoder({32: torch.zeros(2, 4, 4, 6)}, None, lambda places: places).position.shape == (1, 24, 2)
