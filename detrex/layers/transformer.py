"""Post-norm transformer layers with deformable attention.

Shape letters: B images, S tokens, Q queries, D channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from detrex.layers.deformable_attention import DeformableAttention
from detrex.structures.pyramid import Pyramid


class FeedForward(nn.Module):
    """Two linear layers with ReLU, a residual connection and LayerNorm: (..., dim) to (..., dim)."""

    def __init__(self, dim: int, ffn_dim: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.linear1(x).relu())
        return self.norm(x + self.dropout(self.linear2(hidden)))


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

    def forward(self, pyramid: Pyramid, position: Tensor, reference: Tensor) -> Pyramid:
        """Refines the tokens.

        Args:
            pyramid: tokens (B, S, D).
            position: (S, D) position and level encoding.
            reference: (1, S, 2) cell centres, normalised (x, y).
        """
        x = pyramid.tokens
        attended = self.attention(x + position, reference, x, pyramid.shapes)
        x = self.norm(x + self.dropout(attended))
        return pyramid.with_tokens(self.feed_forward(x))


class DeformableDecoderLayer(nn.Module):
    """Queries attend to one another, then to the memory around their reference boxes."""

    def __init__(
        self, dim: int, ffn_dim: int, num_heads: int, num_levels: int, num_points: int, dropout: float = 0.0
    ):
        super().__init__()
        self.self_attention = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.self_norm = nn.LayerNorm(dim)
        self.cross_attention = DeformableAttention(dim, num_heads, num_levels, num_points)
        self.cross_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, ffn_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, content: Tensor, position: Tensor, reference: Tensor, memory: Pyramid, blocked: Tensor | None
    ) -> Tensor:
        """Refines the content of the queries.

        Args:
            content: (B, Q, D).
            position: (B, Q, D) encoding of the reference boxes.
            reference: (B, Q, 4) normalised cxcywh.
            memory: encoded tokens (B, S, D).
            blocked: (Q, Q) bool, True where a query (row) must not see another (column), or None.

        Returns:
            (B, Q, D).
        """
        located = content + position
        attended, _ = self.self_attention(located, located, content, attn_mask=blocked, need_weights=False)
        content = self.self_norm(content + self.dropout(attended))
        attended = self.cross_attention(content + position, reference, memory.tokens, memory.shapes)
        content = self.cross_norm(content + self.dropout(attended))
        return self.feed_forward(content)
