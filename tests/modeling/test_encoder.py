"""Encoders: their levels, what tokens see, and what padding changes."""

import pytest
import torch

from detrex.modeling import DeformableEncoder

CHANNELS = {8: 10, 16: 12}


def features(height=64, width=96):
    return {stride: torch.randn(2, c, height // stride, width // stride) for stride, c in CHANNELS.items()}


def deformable(**options):
    sizes = dict(in_channels=CHANNELS, hidden_dim=32, ffn_dim=16, num_heads=4, num_points=2, num_layers=1)
    return DeformableEncoder(**{**sizes, **options})


@pytest.mark.parametrize("strides", [(8,), (8, 16), (16, 32), (8, 16, 32, 64)])
def test_levels_are_finest_first(strides):
    pyramid = deformable(strides=strides)(features())
    assert pyramid.shapes == tuple((-(-64 // s), -(-96 // s)) for s in strides)
    assert pyramid.tokens.shape == (2, sum(h * w for h, w in pyramid.shapes), 32)
    assert pyramid.position.shape == pyramid.tokens.shape[1:]


def test_extra_levels_are_convolutions_of_the_coarsest_input_and_then_of_one_another():
    module = deformable(strides=(8, 16, 32, 64), num_layers=0)
    maps = features()
    projected = [module.projections[0](maps[8]), module.projections[1](maps[16])]
    projected.append(module.projections[2](maps[16]))
    projected.append(module.projections[3](projected[-1]))
    for level, expected in zip(module(maps).maps(), projected, strict=True):
        torch.testing.assert_close(level, expected)


def test_tokens_of_all_levels_and_not_of_other_images_take_part():
    module = deformable(strides=(8, 16), num_layers=2)
    maps = features()
    before = module(maps)
    changed = {stride: m.clone() for stride, m in maps.items()}
    changed[16][0] += torch.randn_like(changed[16][0])
    after = module(changed)
    assert (after.level(0)[0] - before.level(0)[0]).abs().max() > 1e-4
    torch.testing.assert_close(after.tokens[1], before.tokens[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(strides=(8, 32)), "twice the stride"),
        (dict(strides=(4, 8, 16)), r"no map of stride \[4\]; it has \[8, 16\]"),
        (dict(hidden_dim=48), "48 is not a multiple of 32"),
        (dict(num_heads=5), "32 is not a multiple of the number of heads 5"),
    ],
)
def test_what_does_not_fit_is_explained(options, message):
    with pytest.raises(ValueError, match=message):
        deformable(**{"strides": (8, 16), **options})
