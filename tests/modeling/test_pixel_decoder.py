"""Levels, order and fusion in the pixel decoder."""

import pytest
import torch
import torch.nn.functional as F

from detrex.modeling import DeformablePixelDecoder

CHANNELS = {4: 6, 8: 10, 16: 12}


def features(height=64, width=96):
    return {stride: torch.randn(2, c, height // stride, width // stride) for stride, c in CHANNELS.items()}


def decoder(**options):
    sizes = dict(hidden_dim=32, mask_dim=12, ffn_dim=16, num_heads=4, num_points=2, num_layers=1)
    return DeformablePixelDecoder(CHANNELS, **{**sizes, **options})


@pytest.mark.parametrize("strides", [(8, 16), (4, 8, 16), (16, 32), (8, 16, 32, 64)])
def test_levels_are_finest_first_and_the_embedding_at_stride_4(strides):
    pyramid, embedding = decoder(strides=strides)(features())
    assert pyramid.shapes == tuple((-(-64 // s), -(-96 // s)) for s in strides)
    assert pyramid.tokens.shape == (2, sum(h * w for h, w in pyramid.shapes), 32)
    assert embedding.shape == (2, 12, 16, 24)


def test_extra_levels_are_convolutions_of_the_coarsest_input_and_then_of_one_another():
    module = decoder(strides=(8, 16, 32, 64), num_layers=0)
    maps = features()
    pyramid, _ = module(maps)
    projected = [module.projections[0](maps[8]), module.projections[1](maps[16])]
    projected.append(module.projections[2](maps[16]))
    projected.append(module.projections[3](projected[-1]))
    for level, expected in zip(pyramid.maps(), projected, strict=True):
        torch.testing.assert_close(level, expected)


def test_the_embedding_fuses_the_finest_map_with_the_finest_level():
    module = decoder(strides=(8, 16), num_layers=0)
    maps = features()
    pyramid, embedding = module(maps)
    fine = F.group_norm(F.conv2d(maps[4], module.lateral[0].weight), 32, module.lateral[1].weight)
    up = F.interpolate(pyramid.level(0), scale_factor=2, mode="bilinear", align_corners=False)
    expected = module.pixel_embed(module.fusion(fine + up).relu())
    torch.testing.assert_close(embedding, expected)


def test_tokens_of_all_levels_and_not_of_other_images_take_part():
    module = decoder(strides=(8, 16), num_layers=2)
    maps = features()
    before, _ = module(maps)
    changed = {stride: m.clone() for stride, m in maps.items()}
    changed[16][0] += torch.randn_like(changed[16][0])
    after, _ = module(changed)
    assert (after.level(0)[0] - before.level(0)[0]).abs().max() > 1e-4
    torch.testing.assert_close(after.tokens[1], before.tokens[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(strides=(8, 32)), "twice the stride"),
        (dict(strides=(2, 4, 8)), r"no map of stride \[2\]; it has \[4, 8, 16\]"),
        (dict(hidden_dim=48), "48 is not a multiple of 32"),
        (dict(in_channels={8: 4}, strides=(8, 16)), r"no map of stride \[4\]"),
    ],
)
def test_what_does_not_fit_is_explained(options, message):
    with pytest.raises(ValueError, match=message):
        DeformablePixelDecoder(**{"in_channels": CHANNELS, "hidden_dim": 32, "num_heads": 4, **options})
