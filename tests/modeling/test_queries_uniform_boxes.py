"""The queries of DAB-Deformable-DETR: how boxes start, and how their position is scaled."""

import torch

from detrex.modeling import BoxPosition, PredictionHeads, ScaledBoxPosition, UniformBoxes
from detrex.modeling.queries import QueryState
from detrex.structures import Pyramid

DIM = 8


def memory(batch=2) -> Pyramid:
    return Pyramid.from_maps([torch.zeros(batch, DIM, 4, 6), torch.zeros(batch, DIM, 2, 3)])


def test_contents_scale_the_position_from_the_second_layer_on():
    torch.manual_seed(0)
    scaled, plain = ScaledBoxPosition(DIM), BoxPosition(DIM)
    plain.encoder.load_state_dict(scaled.encoder.state_dict())
    content, boxes = torch.randn(2, 3, DIM), 0.1 + 0.8 * torch.rand(2, 3, 4)
    for layer in range(3):
        queries = QueryState(layer, content, boxes, None, memory())
        found, expected = scaled(queries), plain(queries)
        factor = scaled.scale(content) if layer > 0 else 1.0
        torch.testing.assert_close(found.encoding, expected.encoding * factor)
        torch.testing.assert_close(found.reference, expected.reference)
        assert found.spatial is None


def test_boxes_start_evenly_spread_and_contents_from_nothing():
    torch.manual_seed(0)
    queries = UniformBoxes(5000, DIM)
    (group,) = queries(memory(), None, PredictionHeads(DIM, 3)).groups
    assert group.content.shape == (2, 5000, DIM) and not group.content.any()
    assert queries.content.weight.requires_grad
    logits = queries.reference.weight
    assert logits.min() == -3 and logits.max() == 3
    # Uniform between the two ends, beyond which a share of sigmoid(-3) of the boxes lies on either side.
    end = torch.tensor(-3.0).sigmoid()
    for coordinate in group.reference[0].unbind(-1):
        for share in (0.1, 0.25, 0.5, 0.75, 0.9):
            assert abs((coordinate < share).float().mean().item() - share) < 0.03
        assert abs((coordinate <= end + 1e-6).float().mean() - end) < 0.01
