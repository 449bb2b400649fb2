"""Weights before training, where the published Mask DINO begins with others than its parts."""

import math

import pytest
from torch import nn

from detrex.layers import FeedForward

WIDE = ("model.encoder.ffn_dim=512", "model.decoder.layers.ffn_dim=512")


@pytest.fixture(params=[(), ("model.initialisation=null",)], ids=["published", "own"])
def started(request, build):
    """A model with layers wide enough for statistics, and whether it starts as published."""
    return build(*WIDE, *request.param), not request.param


def xavier(weight):
    return math.sqrt(2 / sum(weight.shape))


def test_spread_of_weights(started):
    model, published = started
    spread = {}
    for part in (model.encoder, model.decoder):
        for module in part.modules():
            if isinstance(module, FeedForward):
                spread[module.linear2.weight] = 1 / math.sqrt(3 * module.linear2.in_features)
                spread[module.linear1.weight] = 1 / math.sqrt(3 * module.linear1.in_features)
            elif isinstance(module, nn.MultiheadAttention):
                spread[module.out_proj.weight] = 1 / math.sqrt(3 * module.embed_dim)
    for layer in model.decoder.position.encoder.layers:
        spread[layer.weight] = 1 / math.sqrt(3 * layer.in_features)
    assert len(spread) == 2 * 3 + 2 + 2
    for weight, default in spread.items():
        expected = xavier(weight) if published else default
        assert weight.std().item() == pytest.approx(expected, rel=0.05), weight.shape


def test_pixel_head_and_classes(started):
    model, published = started
    for conv in (m for m in model.pixel_head.modules() if isinstance(m, nn.Conv2d)):
        inputs = conv.weight[0].numel()
        largest = math.sqrt((3 if published else 1) / inputs)
        assert conv.weight.abs().max().item() == pytest.approx(largest, rel=0.05)
        assert conv.bias is None or bool(conv.bias.any()) != published
    (heads,) = model.decoder.heads.sets
    bias = heads.classes.bias
    assert (bias.abs().max() <= 1 / math.sqrt(heads.classes.in_features)) == published
    assert not heads.box.layers[-1].weight.any()  # in both
