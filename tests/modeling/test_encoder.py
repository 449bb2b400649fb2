"""Encoders: their levels, what tokens see, and what padding changes."""

import pytest
import torch
from torch import nn

from detrex.layers import pyramid_sine_encoding
from detrex.modeling import DeformableEncoder, PlainEncoder
from detrex.structures import PaddedImages, Pyramid

CHANNELS = {8: 10, 16: 12}
# Of the second image there are 3 x 2 cells in 4 x 6 at stride 16.
SIZES = [(64, 96), (48, 32)]


def features(height=64, width=96):
    return {stride: torch.randn(2, c, height // stride, width // stride) for stride, c in CHANNELS.items()}


def deformable(**options):
    sizes = dict(in_channels=CHANNELS, hidden_dim=32, ffn_dim=16, num_heads=4, num_points=2, num_layers=1)
    return DeformableEncoder(**{**sizes, **options})


def plain(**options):
    sizes = dict(in_channels=CHANNELS, hidden_dim=32, ffn_dim=16, num_heads=4, num_layers=2)
    return PlainEncoder(**{**sizes, **options})


def scattered(module):
    """The module in double precision with every parameter random."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.double().eval()


def without_map_norms(module):
    """Group norms of a map depend on its padding, as in published models; here layers are in question."""
    for projection in module.projections:
        projection[1] = nn.Identity()
    return module


MASKED = {
    "deformable": lambda: without_map_norms(deformable(strides=(8, 16), num_layers=2)),
    "deformable, other offset": lambda: without_map_norms(deformable(strides=(8, 16), position_offset=-0.5)),
    "plain": plain,
    "plain, scaled position": lambda: plain(scaled_position=True, temperature=20.0, prelu=True),
}


def masked_features():
    """Maps of a batch, noise in their padding too, and its images."""
    maps = {stride: m.double() for stride, m in features().items()}
    return maps, PaddedImages.from_list([torch.zeros(3, *size) for size in SIZES])


def alone(maps, images, index):
    """Maps and images of one image of the batch by itself, without padding."""
    (height, width), image = images.sizes[index], slice(index, index + 1)
    cut = {stride: m[image, :, : height // stride, : width // stride] for stride, m in maps.items()}
    return cut, PaddedImages(images.tensor[image, :, :height, :width], [(height, width)])


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


@pytest.mark.parametrize("kind", MASKED)
def test_a_padded_batch_is_its_images_one_by_one(kind):
    module = scattered(MASKED[kind]())
    maps, images = masked_features()
    together = module(maps, images)
    assert together.padding[1].any()
    for index in range(2):
        by_itself = module(*alone(maps, images, index))
        unpadded = ~together.padding[index]
        torch.testing.assert_close(together.tokens[index, unpadded], by_itself.tokens[0])
        torch.testing.assert_close(together.position[index, unpadded], by_itself.position[0])


@pytest.mark.parametrize("kind", MASKED)
def test_padding_that_is_not_masked_counts_as_image(kind):
    module = scattered(MASKED[kind]())
    maps, images = masked_features()
    assert module(maps).padding is None
    assert not torch.allclose(module(maps).tokens[1, 0], module(maps, images).tokens[1, 0])


def test_positions_of_deformable_tokens_have_a_part_for_their_level():
    module = deformable(strides=(8, 16))
    pyramid = module(features())
    encodings = pyramid_sine_encoding(pyramid, 32)
    for level, part in enumerate(pyramid.position.split(pyramid.sizes)):
        torch.testing.assert_close(part, encodings[level] + module.level_embed[level])


def test_the_plain_encoder_takes_the_coarsest_map():
    module = plain(num_layers=0)
    maps = features()
    pyramid = module(maps)
    assert pyramid.shapes == ((4, 6),)
    torch.testing.assert_close(pyramid.level(0), module.projection(maps[16]))
    (position,) = pyramid_sine_encoding(pyramid, 32)
    assert torch.equal(pyramid.position, position)


def test_every_layer_scales_positions_by_its_own_tokens():
    module, maps = scattered(plain(scaled_position=True)), {16: features()[16].double()}
    found = module(maps)
    pyramid = Pyramid.from_maps([module.projection(maps[16])])
    for layer in module.layers:
        pyramid = layer(pyramid, found.position * module.position_scale(pyramid.tokens))
    torch.testing.assert_close(found.tokens, pyramid.tokens)


@pytest.mark.parametrize("make", [deformable, plain])
@pytest.mark.parametrize("masked", [False, True])
def test_layers_that_are_computed_again_give_the_same_gradients(make, masked):
    torch.manual_seed(0)
    module = make(dropout=0.2).train()
    images = PaddedImages.from_list([torch.zeros(3, *size) for size in SIZES]) if masked else None
    maps, found, calls = features(), {}, []
    module.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for module.checkpointing in (False, True):
        torch.manual_seed(1)
        module.zero_grad()
        tokens = module(maps, images).tokens
        tokens.square().sum().backward()
        found[module.checkpointing] = [tokens, *(p.grad.clone() for p in module.parameters())]
    assert len(calls) == 1 + 2
    for again, kept in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(again, kept)


def test_evaluation_computes_layers_once():
    module, calls = deformable(checkpointing=True).eval(), []
    module.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    module(features()).tokens.sum().backward()
    assert len(calls) == 1
