"""Attention with content and position apart, against every head by itself."""

import math

import pytest
import torch

from detrex.layers import ConditionalAttention

DIM, HEADS = 12, 3


def inputs(queries=4, keys=5, batch=2):
    torch.manual_seed(0)
    of_queries = [torch.randn(batch, queries, DIM).double() for _ in range(3)]
    of_keys = [torch.randn(batch, keys, DIM).double() for _ in range(2)]
    return *of_queries, *of_keys


def attention_by_heads(module, query, query_position, spatial, key, key_position, visible):
    """Every head's scores from its own rows of the projections, and its values' weighted sum."""
    width = DIM // HEADS
    found = []
    for head in range(HEADS):
        rows = slice(head * width, (head + 1) * width)

        def project(linear, x, rows=rows):
            return x @ linear.weight[rows].T + linear.bias[rows]

        q, k = project(module.query_content, query), project(module.key_content, key)
        located = project(module.key_position, key_position)
        if module.query_position is not None:
            q, k = q + project(module.query_position, query_position), k + located
        scores, channels = q @ k.transpose(1, 2), width
        if module.query_spatial is not None:
            scores = scores + project(module.query_spatial, spatial) @ located.transpose(1, 2)
            channels = 2 * width
        scores = (scores / math.sqrt(channels)).masked_fill(~visible, -math.inf)
        found.append(scores.softmax(-1) @ project(module.value, key))
    return module.output(torch.cat(found, -1))


@pytest.mark.parametrize(("spatial", "query_position"), [(False, True), (True, True), (True, False)])
def test_every_head_by_itself(spatial, query_position):
    module = ConditionalAttention(DIM, HEADS, spatial=spatial, query_position=query_position).double()
    query, position, spatial_query, key, key_position = inputs()
    hidden = torch.rand(2, 4, 5) < 0.4
    hidden[..., 0] = False
    ours = module(query, position, key, key_position, spatial_query if spatial else None, ~hidden[:, None])
    expected = attention_by_heads(module, query, position, spatial_query, key, key_position, ~hidden)
    torch.testing.assert_close(ours, expected)


def test_keys_of_all_images_at_the_same_positions():
    module = ConditionalAttention(DIM, HEADS, spatial=True).double()
    query, position, spatial, key, key_position = inputs()
    shared = key_position[0]
    ours = module(query, position, key, shared, spatial)
    expected = module(query, position, key, shared.expand(2, -1, -1), spatial)
    torch.testing.assert_close(ours, expected)


def test_dropout_is_for_training():
    module = ConditionalAttention(DIM, HEADS, dropout=0.5).double()
    query, position, _, key, key_position = inputs()
    trained = [module(query, position, key, key_position) for _ in range(2)]
    assert not torch.equal(*trained)
    module.eval()
    evaluated = [module(query, position, key, key_position) for _ in range(2)]
    assert torch.equal(*evaluated)


def test_heads_must_divide_the_hidden_size():
    with pytest.raises(ValueError, match=r"30.*4"):
        ConditionalAttention(30, 4)
