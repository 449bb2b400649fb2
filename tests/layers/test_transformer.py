"""Transformer layers against torch's own, and what their position and padding do."""

import pytest
import torch
from torch import nn

from detrex.layers import (
    ConditionalDecoderLayer,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
    EncoderLayer,
    FeedForward,
    PlainDecoderLayer,
    QueryPosition,
)
from detrex.structures import PaddedImages, Pyramid

DIM, FFN, HEADS, QUERIES = 16, 24, 4, 5
SHAPE = (4, 6)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def scattered(module):
    """The module in double precision with every parameter random, norms and biases too."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def memory(masked=False, position=None):
    """Tokens of two images, the second of which fills 2 x 3 of 4 x 6 cells."""
    images = PaddedImages.from_list([torch.zeros(1, 16, 24), torch.zeros(1, 8, 12)]) if masked else None
    pyramid = Pyramid.from_maps([torch.randn(2, DIM, *SHAPE).double()], images)
    return pyramid.with_position(torch.zeros(24, DIM).double() if position is None else position)


def copy_attention(reference, ours):
    reference.load_state_dict(ours.state_dict())


def copy_feed_forward(reference, ours, norm):
    reference.linear1.load_state_dict(ours.linear1.state_dict())
    reference.linear2.load_state_dict(ours.linear2.state_dict())
    norm.load_state_dict(ours.norm.state_dict())


@pytest.mark.parametrize("masked", [False, True])
def test_a_plain_encoder_layer_is_that_of_torch(masked):
    ours = scattered(EncoderLayer(DIM, FFN, HEADS))
    reference = nn.TransformerEncoderLayer(DIM, HEADS, FFN, dropout=0.0, batch_first=True).double()
    copy_attention(reference.self_attn, ours.attention)
    reference.norm1.load_state_dict(ours.norm.state_dict())
    copy_feed_forward(reference, ours.feed_forward, reference.norm2)
    tokens = memory(masked)
    expected = reference(tokens.tokens, src_key_padding_mask=tokens.padding)
    torch.testing.assert_close(ours(tokens, tokens.position).tokens, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_a_plain_decoder_layer_is_that_of_torch(masked):
    ours = scattered(PlainDecoderLayer(DIM, FFN, HEADS))
    reference = nn.TransformerDecoderLayer(DIM, HEADS, FFN, dropout=0.0, batch_first=True).double()
    copy_attention(reference.self_attn, ours.self_attention)
    copy_attention(reference.multihead_attn, ours.cross_attention)
    reference.norm1.load_state_dict(ours.self_norm.state_dict())
    reference.norm2.load_state_dict(ours.cross_norm.state_dict())
    copy_feed_forward(reference, ours.feed_forward, reference.norm3)
    content, tokens = torch.randn(2, QUERIES, DIM).double(), memory(masked)
    blocked = (torch.rand(QUERIES, QUERIES) < 0.5).fill_diagonal_(False)
    nowhere = QueryPosition(torch.zeros_like(content))
    expected = reference(content, tokens.tokens, tgt_mask=blocked, memory_key_padding_mask=tokens.padding)
    torch.testing.assert_close(ours(content, nowhere, tokens, blocked), expected)


def attend(module, query, key, value):
    """Attention of (B, N, DIM) without any mask, with the rows of torch's joint projection."""
    rows = zip((query, key, value), module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3), strict=True)
    q, k, v = ((x @ w.T + b).unflatten(-1, (HEADS, -1)).transpose(1, 2) for x, w, b in rows)
    weights = (q @ k.transpose(-1, -2) / (DIM // HEADS) ** 0.5).softmax(-1)
    return module.out_proj((weights @ v).transpose(1, 2).flatten(2))


def test_positions_are_added_to_queries_and_keys_and_not_to_values():
    layer = scattered(PlainDecoderLayer(DIM, FFN, HEADS))
    content, encoding = torch.randn(2, 2, QUERIES, DIM).double()
    tokens = memory(position=torch.randn(24, DIM).double())
    located = content + encoding
    x = layer.self_norm(content + attend(layer.self_attention, located, located, content))
    found = attend(layer.cross_attention, x + encoding, tokens.tokens + tokens.position, tokens.tokens)
    expected = layer.feed_forward(layer.cross_norm(x + found))
    torch.testing.assert_close(layer(content, QueryPosition(encoding), tokens, None), expected)

    encoder = scattered(EncoderLayer(DIM, FFN, HEADS))
    x, located = tokens.tokens, tokens.tokens + tokens.position
    expected = encoder.feed_forward(encoder.norm(x + attend(encoder.attention, located, located, x)))
    torch.testing.assert_close(encoder(tokens, tokens.position).tokens, expected)


def test_a_learned_leak_in_place_of_relu():
    leaky, plain = FeedForward(DIM, FFN, prelu=True), FeedForward(DIM, FFN)
    state = leaky.state_dict()
    slope = state.pop("activation.weight")
    assert slope.tolist() == [0.25]
    plain.load_state_dict(state)
    x = torch.randn(3, DIM)
    assert not torch.allclose(leaky(x), plain(x))
    nn.init.zeros_(leaky.activation.weight)
    torch.testing.assert_close(leaky(x), plain(x))


def decoder_layers():
    return {
        "plain": PlainDecoderLayer(DIM, FFN, HEADS),
        "conditional": ConditionalDecoderLayer(DIM, FFN, HEADS, first=True),
        "conditional, later": ConditionalDecoderLayer(DIM, FFN, HEADS),
        "deformable": DeformableDecoderLayer(DIM, FFN, HEADS, num_levels=1, num_points=4),
    }


def positions(tokens, reference_dim=4):
    encoding, spatial = torch.randn(2, 2, QUERIES, DIM).double()
    reference = 0.2 + 0.6 * torch.rand(2, QUERIES, reference_dim).double()
    return QueryPosition(encoding, tokens.on_levels(reference), spatial)


def with_noise_in_padding(tokens):
    noise = 100 * torch.randn_like(tokens.tokens)
    return tokens.with_tokens(torch.where(tokens.padding[..., None], noise, tokens.tokens))


@pytest.mark.parametrize("kind", decoder_layers())
def test_what_is_in_masked_padding_does_not_matter(kind):
    layer = scattered(decoder_layers()[kind])
    content, tokens = torch.randn(2, QUERIES, DIM).double(), memory(True, torch.randn(2, 24, DIM).double())
    position = positions(tokens)
    after = layer(content, position, with_noise_in_padding(tokens), None)
    torch.testing.assert_close(after, layer(content, position, tokens, None))
    seen = tokens.with_tokens(torch.where(tokens.padding[..., None], tokens.tokens, 2 * tokens.tokens))
    assert not torch.allclose(after, layer(content, position, seen, None))


@pytest.mark.parametrize("deformable", [False, True])
def test_what_is_in_masked_padding_does_not_matter_to_other_tokens(deformable):
    tokens = memory(True, torch.randn(2, 24, DIM).double())
    if deformable:
        layer = scattered(DeformableEncoderLayer(DIM, FFN, HEADS, num_levels=1, num_points=4))
        where = tokens.on_levels(tokens.cell_centres())
    else:
        layer, where = scattered(EncoderLayer(DIM, FFN, HEADS)), tokens.position
    before, after = layer(tokens, where), layer(with_noise_in_padding(tokens), where)
    inside = ~tokens.padding
    torch.testing.assert_close(after.tokens[inside], before.tokens[inside])


@pytest.mark.parametrize("kind", decoder_layers())
def test_queries_see_no_blocked_one(kind):
    layer = scattered(decoder_layers()[kind])
    content, tokens = torch.randn(2, QUERIES, DIM).double(), memory()
    position = positions(tokens)
    blocked = torch.zeros(QUERIES, QUERIES, dtype=torch.bool)
    blocked[:3, 4] = True
    before = layer(content, position, tokens, blocked)
    content[:, 4] += 1
    after = layer(content, position, tokens, blocked)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3], before[:, 3])


def test_only_the_first_conditional_layer_adds_positions_to_contents_of_the_memory():
    tokens, content = memory(position=torch.randn(24, DIM).double()), torch.randn(2, QUERIES, DIM).double()
    for first in (True, False):
        layer = scattered(ConditionalDecoderLayer(DIM, FFN, HEADS, first=first))
        position = positions(tokens)
        moved = QueryPosition(position.encoding + 1, spatial=position.spatial)
        same = torch.allclose(
            layer.attend_to_memory(content, position, tokens), layer.attend_to_memory(content, moved, tokens)
        )
        assert same is not first
