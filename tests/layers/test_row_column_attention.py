"""Row-column attention (Anchor DETR, arXiv 2109.07107) against sums written out."""

import pytest
import torch
import torch.nn.functional as F

from detrex.layers import RowColumnAttention, RowColumnEncoderLayer
from detrex.structures import Pyramid

DIM, HEADS = 8, 2


def literally(attention, queries, keys, value, padding):
    """One query and head at a time."""
    weights = attention.in_proj_weight.chunk(5)
    biases = attention.in_proj_bias.chunk(5)
    batch, height, width, _ = value.shape
    rows = []
    for b in range(batch):
        q = [F.linear(queries[i][b], weights[i], biases[i]) for i in range(2)]
        k = [F.linear(keys[i][b], weights[2 + i], biases[2 + i]).mean(i) for i in range(2)]
        v = F.linear(value[b], weights[4], biases[4])
        out = torch.zeros(len(q[0]), DIM)
        for n in range(len(out)):
            for head in range(HEADS):
                part = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
                scores = [k[i][:, part] @ q[i][n, part] / (DIM // HEADS) ** 0.5 for i in range(2)]
                scores[0] = scores[0].masked_fill(padding[b, 0], -torch.inf)
                scores[1] = scores[1].masked_fill(padding[b, :, 0], -torch.inf)
                across, down = (s.softmax(0) for s in scores)
                for y in range(height):
                    for x in range(width):
                        out[n, part] += down[y] * across[x] * v[y, x, part]
        rows.append(attention.out_proj(out))
    return torch.stack(rows)


def test_it_is_the_sum_over_rows_and_columns():
    torch.manual_seed(0)
    attention = RowColumnAttention(DIM, HEADS)
    torch.nn.init.normal_(attention.in_proj_bias)
    queries = torch.randn(2, 2, 3, DIM)
    keys, value = torch.randn(2, 2, 4, 5, DIM), torch.randn(2, 4, 5, DIM)
    padding = torch.zeros(2, 4, 5, dtype=torch.bool)
    padding[1, 3:] = padding[1, :, 2:] = True
    with torch.no_grad():
        found = attention(queries, keys, value, padding)
        torch.testing.assert_close(found, literally(attention, queries, keys, value, padding))
        without = attention(queries, keys, value)
    torch.testing.assert_close(found[0], without[0])
    assert not torch.allclose(found[1], without[1])


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="8 is not a multiple of the number of heads 3"):
        RowColumnAttention(8, 3)


def test_a_layer_says_what_positions_it_needs():
    layer = RowColumnEncoderLayer(DIM, 16, HEADS)
    with pytest.raises(ValueError, match="positions along x and y"):
        layer(Pyramid.from_maps([torch.zeros(1, DIM, 2, 2)]))
