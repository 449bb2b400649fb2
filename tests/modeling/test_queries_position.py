"""What layers are told about where queries are, by hand."""

import math

import pytest
import torch
from torch import nn

from detrex.modeling import AnchorPosition, BoxPosition, ConditionalPosition, FixedPosition
from detrex.modeling.queries import QueryState
from detrex.structures import PaddedImages, Pyramid

DIM, QUERIES = 8, 3


@pytest.fixture
def memory() -> Pyramid:
    """Two levels, of which the second image fills 2 of 4 rows and 3 of 6 columns, and 1 of 2 and 2 of 3."""
    images = PaddedImages.from_list([torch.zeros(1, 8, 12), torch.zeros(1, 4, 6)])
    return Pyramid.from_maps([torch.zeros(2, DIM, 4, 6), torch.zeros(2, DIM, 2, 3)], images)


def state(memory, layer=1, dim=4):
    reference = 0.1 + 0.8 * torch.rand(2, QUERIES, dim)
    return QueryState(layer, torch.randn(2, QUERIES, DIM), reference, torch.randn(2, QUERIES, DIM), memory)


def encoded(value, dim=DIM // 2):
    """Sines and cosines of one coordinate, one by one."""
    found = []
    for i in range(dim // 2):
        angle = 2 * math.pi * value / 10000 ** (2 * i / dim)
        found += [math.sin(angle), math.cos(angle)]
    return found


def by_query(function, *rows):
    """``function`` of the rows of every query of every image."""
    images = zip(*(row.tolist() for row in rows), strict=True)
    return torch.tensor([[function(*query) for query in zip(*image, strict=True)] for image in images])


@pytest.mark.parametrize("dim", [2, 4])
def test_a_fixed_position_is_the_learned_one_and_its_point_on_levels(memory, dim):
    queries = state(memory, dim=dim)
    position = FixedPosition()(queries)
    assert position.encoding is queries.learned and position.spatial is None
    torch.testing.assert_close(position.reference, memory.on_levels(queries.reference))


def test_a_fixed_position_without_a_place(memory):
    queries = state(memory)
    queries.reference = None
    position = FixedPosition()(queries)
    assert position.encoding is queries.learned and position.reference is None


@pytest.mark.parametrize("position", [FixedPosition(), ConditionalPosition(32)])
def test_queries_without_a_learned_position_are_an_error(memory, position):
    queries = QueryState(0, torch.zeros(2, 3, 32), torch.rand(2, 3, 2), None, memory)
    with pytest.raises(ValueError, match="have no learned position"):
        position(queries)


def test_boxes_are_encoded_as_they_lie_on_the_finest_level(memory):
    queries, module = state(memory), BoxPosition(DIM)
    module.encoder = nn.Identity()
    position = module(queries)
    share = torch.tensor([[1.0, 1, 1, 1], [0.5, 0.5, 0.5, 0.5]])[:, None]
    expected = by_query(
        lambda box: [v for i in (1, 0, 2, 3) for v in encoded(box[i])], queries.reference * share
    )
    torch.testing.assert_close(position.encoding, expected)
    torch.testing.assert_close(position.reference, memory.on_levels(queries.reference))
    assert position.spatial is None


@pytest.mark.parametrize("layer", [0, 1])
def test_contents_scale_the_encoding_of_a_point_after_the_first_layer(memory, layer):
    queries, module = state(memory, layer, dim=2), ConditionalPosition(DIM)
    position = module(queries)
    expected = by_query(lambda point: encoded(point[1]) + encoded(point[0]), queries.reference)
    if layer > 0:
        expected = expected * module.scale(queries.content)
    torch.testing.assert_close(position.spatial, expected)
    assert position.encoding is queries.learned and position.reference is None


@pytest.mark.parametrize("layer", [0, 1])
def test_anchors_stretch_the_encoding_by_a_size_from_contents(memory, layer):
    queries, module = state(memory, layer), AnchorPosition(DIM)
    sizes = module.size(queries.content).sigmoid()
    module.encoder = nn.Identity()
    position = module(queries)

    def stretched(box, size):
        y = [v * size[1] / box[3] for v in encoded(box[1])]
        return y + [v * size[0] / box[2] for v in encoded(box[0])]

    expected = by_query(stretched, queries.reference, sizes)
    if layer > 0:
        expected = expected * module.scale(queries.content)
    torch.testing.assert_close(position.spatial, expected)
    whole = by_query(lambda box: [v for i in (1, 0, 2, 3) for v in encoded(box[i])], queries.reference)
    torch.testing.assert_close(position.encoding, whole)
    assert position.reference is None
