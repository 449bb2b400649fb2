"""SQR (arXiv 2212.07593): which queries layers refine in training, and that inference is DAB-DETR's."""

import pytest
import torch

from detrex.modeling import AnchorPosition, ConditionalDecoderLayers, Decoder, PredictionHeads
from detrex.modeling.queries import QueryState
from detrex.structures import Pyramid
from projects.sqr_detr.decoder import EvenCentres, RecollectingDecoder

DIM = 16


def parts(layers: int = 4, **heads):
    return {
        "query_init": EvenCentres(3, DIM),
        "position": AnchorPosition(DIM),
        "heads": PredictionHeads(DIM, 5, **heads),
        "layers": ConditionalDecoderLayers(DIM, 24, 2, layers),
    }


def memory() -> Pyramid:
    torch.manual_seed(1)
    return Pyramid.from_maps([torch.randn(2, DIM, 3, 4)]).with_position(torch.randn(12, DIM))


@pytest.fixture
def decoder() -> RecollectingDecoder:
    torch.manual_seed(0)
    made = RecollectingDecoder(**parts())
    torch.nn.init.normal_(made.heads.sets[0].box.layers[-1].weight, std=0.3)
    return made


def test_inference_is_that_of_the_plain_decoder(decoder):
    plain = Decoder(**parts(), refine_boxes=True, look_forward_twice=True)
    plain.load_state_dict(decoder.state_dict())
    output, reference = (d.eval()(memory()).final for d in (decoder, plain))
    torch.testing.assert_close(output.boxes, reference.boxes)
    torch.testing.assert_close(output.logits, reference.logits)


def test_every_path_that_skips_no_two_layers_is_supervised(decoder):
    """A prediction is that of a decoder of the layers that its queries passed, in the order of the paper."""
    supervised = decoder.train()(memory()).supervised
    assert [s.loss_suffix for s in supervised] == [*(f"_{i}" for i in range(10)), ""]
    paths = [[0], [1], [0, 1], [0, 2], [1, 2], [0, 1, 2]]
    paths += [[1, 3], [0, 1, 3], [0, 2, 3], [1, 2, 3], [0, 1, 2, 3]]
    group = decoder.query_init(memory(), None, decoder.heads).groups[0]
    for path, part in zip(paths, supervised, strict=True):
        expected = along(decoder, path, group.content, group.reference)
        torch.testing.assert_close(part.prediction.boxes, expected.boxes)
        torch.testing.assert_close(part.prediction.logits, expected.logits)


def along(decoder, path, content, reference):
    """What the plain decoder's steps make of queries that pass only the layers of ``path``."""
    fixed = reference
    for number in path:
        position = decoder.position(QueryState(number, content, fixed, None, memory()))
        content = decoder.layers[number](content, position, memory(), None)
        prediction = decoder.predict(number, content, reference)
        reference = decoder.refined(number, content, fixed)
        fixed = reference.detach()
    return prediction


def test_six_layers_have_32_predictions():
    torch.manual_seed(0)
    assert len(RecollectingDecoder(**parts(6)).train()(memory()).supervised) == 32


def test_boxes_start_evenly_spread():
    torch.manual_seed(0)
    centres = EvenCentres(4000, DIM).reference.weight[:, :2].sigmoid()
    for share in (0.1, 0.5, 0.9):
        assert abs((centres < share).float().mean().item() - share) < 0.03


def test_layers_with_heads_of_their_own_are_refused():
    with pytest.raises(ValueError, match=r"model\.decoder\.heads\.num_sets=1"):
        RecollectingDecoder(**parts(num_sets=4))
