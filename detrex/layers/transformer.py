"""Post-norm transformer layers: plain, conditional and deformable attention.

Shape letters: B images, S tokens, Q queries, M heads, L levels, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers.conditional_attention import ConditionalAttention
from detrex.layers.deformable_attention import DeformableAttention
from detrex.structures.pyramid import Pyramid


@dataclass
class QueryPosition:
    """Where queries are, as a decoder layer needs it.

    Attributes:
        encoding: (B, Q, D), added to the content of queries.
        reference: (B or 1, Q, L or 1, 2 or 4) normalised (x, y) or cxcywh, relative to the padded input on
            every level, for deformable attention; else None.
        spatial: (B, Q, D), which conditional attention compares with the positions of tokens; else None.
    """

    encoding: Tensor
    reference: Tensor | None = None
    spatial: Tensor | None = None


class FeedForward(nn.Module):
    """Two linear layers, a residual connection and LayerNorm: (..., dim) to (..., dim).

    Args:
        dim, ffn_dim: outer and inner channels.
        dropout: after the activation and at the end.
        prelu: a learned leak in place of ReLU (DAB-DETR).
    """

    def __init__(self, dim: int, ffn_dim: int, dropout: float = 0.0, prelu: bool = False):
        super().__init__()
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.activation = nn.PReLU() if prelu else nn.ReLU(inplace=True)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.dropout(self.transform(x)))

    def transform(self, x: Tensor) -> Tensor:
        """Both linear layers, without the residual connection: (..., dim) to (..., dim)."""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class EncoderLayer(nn.Module):
    """Tokens of one level attend to all of them (DETR, arXiv 2005.12872)."""

    def __init__(self, dim: int, ffn_dim: int, num_heads: int, dropout: float = 0.0, prelu: bool = False):
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, ffn_dim, dropout, prelu)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pyramid: Pyramid, position: Tensor) -> Pyramid:
        """Refines the tokens (B, S, D), which are at ``position`` (S, D) or (B, S, D)."""
        x = pyramid.tokens  # (B, S, D)
        located = x + position
        attended, _ = self.attention(
            located, located, x, key_padding_mask=pyramid.padding, need_weights=False
        )
        return pyramid.with_tokens(self.feed_forward(self.norm(x + self.dropout(attended))))


class DeformableEncoderLayer(nn.Module):
    """Tokens attend to tokens of all levels around their own position (Deformable DETR, arXiv 2010.04159)."""

    def __init__(
        self, dim: int, ffn_dim: int, num_heads: int, num_levels: int, num_points: int, dropout: float = 0.0
    ):
        super().__init__()
        self.attention = DeformableAttention(dim, num_heads, num_levels, num_points)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, ffn_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pyramid: Pyramid, reference: Tensor) -> Pyramid:
        """Refines the tokens.

        Args:
            pyramid: tokens (B, S, D) and their position.
            reference: (1 or B, S, L or 1, 2) cell centres, normalised (x, y) on every level.
        """
        x = pyramid.tokens  # (B, S, D)
        attended = self.attention(pyramid.located_tokens, reference, pyramid)  # (B, S, D)
        x = self.norm(x + self.dropout(attended))
        return pyramid.with_tokens(self.feed_forward(x))


class DecoderLayer(nn.Module):
    """Queries attend to one another, then to the memory, then pass a feed-forward network.

    Args:
        self_attention, cross_attention: modules that :meth:`attend_to_queries` and :meth:`attend_to_memory`
            call.
        dim, ffn_dim, dropout, prelu: see :class:`FeedForward`.
    """

    def __init__(
        self,
        self_attention: nn.Module,
        cross_attention: nn.Module,
        dim: int,
        ffn_dim: int,
        dropout: float = 0.0,
        prelu: bool = False,
    ):
        super().__init__()
        self.self_attention, self.cross_attention = self_attention, cross_attention
        self.self_norm, self.cross_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, ffn_dim, dropout, prelu)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, content: Tensor, position: QueryPosition, memory: Pyramid, blocked: Tensor | None
    ) -> Tensor:
        """Refines the content of the queries.

        Args:
            content: (B, Q, D).
            position: of the queries.
            memory: encoded tokens (B, S, D).
            blocked: (Q, Q) bool, True where a query (row) must not see another (column), or None.

        Returns:
            (B, Q, D).
        """
        attended = self.attend_to_queries(content, position, blocked)  # (B, Q, D)
        content = self.self_norm(content + self.dropout(attended))
        attended = self.attend_to_memory(content, position, memory)  # (B, Q, D)
        content = self.cross_norm(content + self.dropout(attended))
        return self.feed_forward(content)

    def attend_to_queries(self, content: Tensor, position: QueryPosition, blocked: Tensor | None) -> Tensor:
        """Plain self-attention; (B, Q, D)."""
        located = content + position.encoding  # (B, Q, D)
        return self.self_attention(located, located, content, attn_mask=blocked, need_weights=False)[0]

    def attend_to_memory(self, content: Tensor, position: QueryPosition, memory: Pyramid) -> Tensor:
        """Cross-attention from the queries to the memory; (B, Q, D)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how queries attend to the memory")


class PlainDecoderLayer(DecoderLayer):
    """Every query sees every token (DETR, arXiv 2005.12872)."""

    def __init__(self, dim: int, ffn_dim: int, num_heads: int, dropout: float = 0.0):
        self_attention, cross_attention = (
            nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True) for _ in range(2)
        )
        super().__init__(self_attention, cross_attention, dim, ffn_dim, dropout)

    def attend_to_memory(self, content: Tensor, position: QueryPosition, memory: Pyramid) -> Tensor:
        query = content + position.encoding  # (B, Q, D)
        return self.cross_attention(
            query, memory.located_tokens, memory.tokens, key_padding_mask=memory.padding, need_weights=False
        )[0]


class ConditionalDecoderLayer(DecoderLayer):
    """Compares content and position of queries separately with those of tokens (arXiv 2108.06152).

    Args:
        first: whether this is the first layer, in which the queries' position is added to their content,
            because the content says nothing yet.
        prelu: see :class:`FeedForward`.
    """

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        first: bool = False,
        prelu: bool = False,
    ):
        super().__init__(
            ConditionalAttention(dim, num_heads, dropout),
            ConditionalAttention(dim, num_heads, dropout, spatial=True, query_position=first),
            dim,
            ffn_dim,
            dropout,
            prelu,
        )

    def attend_to_queries(self, content: Tensor, position: QueryPosition, blocked: Tensor | None) -> Tensor:
        seen = None if blocked is None else ~blocked  # (Q, Q)
        return self.self_attention(content, position.encoding, content, position.encoding, visible=seen)

    def attend_to_memory(self, content: Tensor, position: QueryPosition, memory: Pyramid) -> Tensor:
        # In the published training, queries see padding; its inference takes single images, without padding.
        hidden = None if self.training else memory.padding
        seen = None if hidden is None else ~hidden[:, None, None]  # (B, 1, 1, S)
        return self.cross_attention(
            content, position.encoding, memory.tokens, memory.position, position.spatial, seen
        )


class DeformableDecoderLayer(DecoderLayer):
    """Queries attend to the memory around their reference points or boxes (arXiv 2010.04159)."""

    def __init__(
        self, dim: int, ffn_dim: int, num_heads: int, num_levels: int, num_points: int, dropout: float = 0.0
    ):
        super().__init__(
            nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True),
            DeformableAttention(dim, num_heads, num_levels, num_points),
            dim,
            ffn_dim,
            dropout,
        )

    def attend_to_memory(self, content: Tensor, position: QueryPosition, memory: Pyramid) -> Tensor:
        return self.cross_attention(content + position.encoding, position.reference, memory)


class TrackInteraction(nn.Module):
    """Updates the queries of a frame for the next one by attention among them (MOTR, arXiv 2105.03247).

    Args:
        dim, ffn_dim, num_heads: of attention and feed-forward networks.
    """

    def __init__(self, dim: int, ffn_dim: int, num_heads: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward, self.update = FeedForward(dim, ffn_dim), FeedForward(dim, ffn_dim)

    def forward(self, before: Tensor, after: Tensor, position: Tensor) -> Tensor:
        """Updates contents.

        Args:
            before: (B, T, dim) contents with which queries entered the decoder.
            after: (B, T, dim) contents with which they left it.
            position: (B, T, dim) encoding of where their objects are.

        Returns:
            (B, T, dim). If T is 0, the result still depends on the parameters, because distributed training
            waits for their gradients.
        """
        count = after.shape[1]
        if count == 0:  # attention needs something to attend to
            before, after, position = (F.pad(value, (0, 0, 0, 1)) for value in (before, after, position))
        located = after + position  # (B, T, dim)
        attended = self.attention(located, located, after, need_weights=False)[0]  # (B, T, dim)
        mixed = self.feed_forward(self.norm(after + attended))
        return self.update.norm(before + self.update.transform(mixed))[:, :count]
