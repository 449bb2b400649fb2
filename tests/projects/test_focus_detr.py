"""Focus-DETR (arXiv 2307.12612): which tokens the encoder works on."""

import pytest
import torch

from detrex.layers import ForegroundPredictor
from detrex.structures import PaddedImages
from projects.focus_detr.focus import FocusEncoder

DIM = 32
SIZES = [(64, 96), (48, 64)]


def encoder(**options) -> FocusEncoder:
    torch.manual_seed(0)
    options = {"num_layers": 2, "layer_shares": (1.0, 0.5), "object_tokens": 4, **options}
    return FocusEncoder({8: 4, 16: 6}, (8, 16), DIM, 24, 2, 2, **options).eval()


def batch():
    torch.manual_seed(1)
    features = {8: torch.randn(2, 4, 8, 12), 16: torch.randn(2, 6, 4, 6)}
    return features, PaddedImages(torch.zeros(2, 3, 64, 96), SIZES)


def encode(module, normalise=lambda memory: memory.tokens, classify=lambda tokens: tokens[..., :3]):
    features, images = batch()
    before = module.flatten(features, images)
    with torch.no_grad():
        return before, module(features, images, normalise, classify)


def changed(before, after):
    return (before.tokens != after.tokens).any(-1)  # (B, S)


def test_only_the_tokens_with_the_highest_scores_change():
    before, after = encode(encoder())
    # 96 + 24 tokens, of which the second image has 6 * 8 + 3 * 4 without padding.
    counts = [1 + 60, 1 + 30]
    for image, count in enumerate(counts):
        best = after.scores[image].masked_fill(before.padding[image], -torch.inf).topk(count).indices
        expected = torch.zeros(120, dtype=torch.bool).index_fill(0, best, True)
        assert torch.equal(changed(before, after)[image], expected)


def test_later_layers_work_on_fewer_tokens():
    one, two = encoder(num_layers=1), encoder()
    two.load_state_dict(one.state_dict(), strict=False)
    _, first = encode(one)
    _, second = encode(two)
    again = changed(first, second)
    best = first.scores[0].topk(30).indices  # half of the first image's 61
    assert torch.equal(again[0], torch.zeros(120, dtype=torch.bool).index_fill(0, best, True))


def test_objects_are_chosen_by_the_product_of_class_and_foreground():
    """Both as logits: the tokens whose class the stand-in knows are those that see one another."""
    module, chosen = encoder(num_layers=1, object_tokens=5), []
    module.layers[0].register_forward_pre_hook(lambda _, inputs: chosen.append(inputs[2]))
    _, after = encode(module)
    for image in range(2):
        order = after.scores[image].topk(61).indices if image == 0 else None
        if order is not None:
            before, _ = encode(module)
            worth = before.tokens[image, order, :3].amax(-1) * after.scores[image, order]
            assert set(chosen[0][image].tolist()) == set(worth.topk(5).indices.tolist())


def test_a_level_hears_of_the_coarser_one():
    module = encoder()
    _, before = encode(module)
    torch.nn.init.constant_(module.modulation, 50.0)
    _, after = encode(module)
    torch.testing.assert_close(before.scores[:, 96:], after.scores[:, 96:])
    assert not torch.allclose(before.scores[:, :96], after.scores[:, :96])


def test_the_predictor_sees_the_mean_of_its_level():
    torch.manual_seed(0)
    predictor, tokens = ForegroundPredictor(8), torch.randn(1, 5, 8)
    other = tokens.clone()
    other[0, 4] += torch.randn(8)
    assert not torch.allclose(predictor(tokens)[0, :4], predictor(other)[0, :4])
    alone = predictor(tokens[:, :4])
    torch.testing.assert_close(alone, predictor(tokens[:, [3, 2, 1, 0]])[:, [3, 2, 1, 0]])


@pytest.mark.parametrize("kept", [1.0, 0.01])
def test_all_tokens_or_hardly_any(kept):
    before, after = encode(encoder(kept=kept, object_tokens=300))
    count = changed(before, after).sum(1).tolist()
    assert count == ([120, 60 + 1] if kept == 1.0 else [1 + 1, 1])
