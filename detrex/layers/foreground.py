"""Layers that tell tokens of objects from tokens of background (Focus-DETR, arXiv 2307.12612).

Shape letters: B images, S tokens of a level, Q tokens that a layer works on, L levels, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detrex.layers.functional import put_rows, take_rows
from detrex.layers.transformer import DeformableEncoderLayer
from detrex.structures import Pyramid


class ForegroundPredictor(nn.Module):
    """Scores how likely tokens belong to an object, given the level's mean: (B, S, D) to (B, S)."""

    def __init__(self, dim: int):
        super().__init__()
        self.features = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.score = nn.Sequential(
            nn.Linear(dim, dim // 2),
            nn.GELU(),
            nn.Linear(dim // 2, dim // 4),
            nn.GELU(),
            nn.Linear(dim // 4, 1),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        local, everywhere = self.features(tokens).chunk(2, -1)
        mean = everywhere.mean(1, keepdim=True).expand_as(local)
        return self.score(torch.cat([local, mean], -1)).squeeze(-1)


class FocusEncoderLayer(DeformableEncoderLayer):
    """Tokens that seem to show objects attend to one another; then all tokens attend to the memory."""

    def __init__(
        self, dim: int, ffn_dim: int, num_heads: int, num_levels: int, num_points: int, dropout: float = 0.0
    ):
        super().__init__(dim, ffn_dim, num_heads, num_levels, num_points, dropout)
        self.self_attention = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.self_norm = nn.LayerNorm(dim)

    def forward(  # type: ignore[override]  # it works on some of the tokens
        self, tokens: Tensor, position: Tensor, objects: Tensor, reference: Tensor, memory: Pyramid
    ) -> Tensor:
        """Refines tokens (B, Q, D) at ``position`` (B, Q, D).

        Args:
            objects: (B, K) numbers of the tokens that attend to one another.
            reference: (B or 1, Q, L or 1, 2), see :class:`~detrex.layers.DeformableEncoderLayer`.
            memory: the tokens that all of them attend to.
        """
        chosen = take_rows(tokens, objects)
        located = chosen + take_rows(position, objects)
        chosen = chosen + self.self_attention(located, located, chosen, need_weights=False)[0]
        tokens = put_rows(tokens, objects, self.self_norm(chosen))
        attended = self.attention(tokens + position, reference, memory)
        return self.feed_forward(self.norm(tokens + self.dropout(attended)))
