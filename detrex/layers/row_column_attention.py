"""Row-column decoupled attention: weights of rows times weights of columns (Anchor DETR, arXiv 2109.07107).

Shape letters: B images, Q queries, S tokens of one level, H and W its cells, M heads, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers.transformer import DecoderLayer, FeedForward, QueryPosition
from detrex.structures import Pyramid


class RowColumnAttention(nn.Module):
    """Attends to a map, first along its rows and then along its columns.

    A query has a weight for every column, from keys averaged over rows, and a weight for every row, from keys
    averaged over columns. The weight of a cell is the product of the two.

    Args:
        dim: D.
        num_heads: M.
        dropout: on the weights.

    Raises:
        ValueError: ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"hidden size {dim} is not a multiple of the number of heads {num_heads}")
        self.num_heads, self.dropout = num_heads, dropout
        # Of queries along x and y, keys along x and y, and values.
        self.in_proj_weight = nn.Parameter(torch.empty(5 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(5 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        queries: Sequence[Tensor],
        keys: Sequence[Tensor],
        value: Tensor,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Attends.

        Args:
            queries: contents with encodings of x, and with encodings of y, (B, Q, D) each.
            keys: cells with encodings of x, and with encodings of y, (B, H, W, D) each.
            value: (B, H, W, D).
            padding: (B, H, W) bool, True for cells of masked padding, right and below; None for none. The
                averages of keys include padding.

        Returns:
            (B, Q, D).
        """
        projections = zip(self.in_proj_weight.chunk(5), self.in_proj_bias.chunk(5), strict=True)
        means = keys[0].mean(1), keys[1].mean(2)  # (B, W, D) and (B, H, D)
        inputs = (*queries, *means, value.flatten(1, 2))
        query_x, query_y, key_x, key_y, values = (
            F.linear(x, *projection).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, M, ·, D / M)
            for x, projection in zip(inputs, projections, strict=True)
        )
        columns = self._weights(query_x, key_x, None if padding is None else padding[:, 0])  # (B, M, Q, W)
        rows = self._weights(query_y, key_y, None if padding is None else padding[:, :, 0])  # (B, M, Q, H)
        values = values.unflatten(2, value.shape[1:3])  # (B, M, H, W, D / M)
        by_row = torch.einsum("bmqw,bmhwd->bmqhd", columns, values)
        attended = torch.einsum("bmqh,bmqhd->bmqd", rows, by_row)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _weights(self, query: Tensor, key: Tensor, padding: Tensor | None) -> Tensor:
        logits = query / query.shape[-1] ** 0.5 @ key.transpose(-1, -2)
        if padding is not None:
            logits = logits.masked_fill(padding[:, None, None], -torch.inf)
        return F.dropout(logits.softmax(-1), self.dropout, self.training)


class RowColumnEncoderLayer(nn.Module):
    """Tokens of one level attend to its rows and columns.

    Args:
        dim, ffn_dim, num_heads, dropout: see :class:`RowColumnAttention` and
            :class:`~detrex.layers.FeedForward`.
    """

    def __init__(self, dim: int, ffn_dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        self.attention = RowColumnAttention(dim, num_heads, dropout)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, ffn_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        """Refines the tokens (B, S, D), whose position (B or 1, S, 2 * D) is along x first, then along y."""
        attended = _attend_to_map(self.attention, pyramid.tokens, pyramid.position, pyramid)
        return pyramid.with_tokens(self.feed_forward(self.norm(pyramid.tokens + self.dropout(attended))))


class RowColumnDecoderLayer(DecoderLayer):
    """Queries attend to one another, then to rows and columns of the memory.

    Their spatial position (B, Q, 2 * D) is along x first, then along y, like the memory's position.

    Args:
        dim, ffn_dim, num_heads, dropout: see :class:`RowColumnEncoderLayer`.
    """

    def __init__(self, dim: int, ffn_dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__(
            nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True),
            RowColumnAttention(dim, num_heads, dropout),
            dim,
            ffn_dim,
            dropout,
        )

    def attend_to_memory(self, content: Tensor, position: QueryPosition, memory: Pyramid) -> Tensor:
        return _attend_to_map(self.cross_attention, content, position.spatial, memory)


def _attend_to_map(attention: nn.Module, content: Tensor, position: Tensor | None, memory: Pyramid) -> Tensor:
    """Contents (B, Q, D) at positions (B or 1, Q, 2 * D) attend to the memory's one level: (B, Q, D)."""
    if position is None or memory.position is None:
        raise ValueError("row-column attention needs positions along x and y, of queries and of the memory")
    (shape,) = memory.shapes
    queries = [content + along for along in position.chunk(2, -1)]
    keys = [(memory.tokens + along).unflatten(1, shape) for along in memory.position.chunk(2, -1)]
    padding = None if memory.padding is None else memory.padding.unflatten(1, shape)
    return attention(queries, keys, memory.tokens.unflatten(1, shape), padding)
