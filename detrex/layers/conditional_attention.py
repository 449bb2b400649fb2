"""Attention that keeps content and position apart (Conditional DETR, arXiv 2108.06152).

Shape letters: B images, Q queries, K keys, M heads, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConditionalAttention(nn.Module):
    """Multi-head attention with separate projections for content and position.

    Args:
        dim: D.
        num_heads: M.
        dropout: on the attention weights.
        spatial: give queries a spatial part beside their content, which every head compares with the keys'
            position. Otherwise, position is added to content.
        query_position: with ``spatial``, also add positions to contents.

    Raises:
        ValueError: ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        dropout: float = 0.0,
        spatial: bool = False,
        query_position: bool = True,
    ):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"hidden size {dim} is not a multiple of the number of heads {num_heads}")
        self.num_heads, self.dropout = num_heads, dropout
        self.query_content, self.key_content = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.query_position = nn.Linear(dim, dim) if query_position else None
        self.key_position = nn.Linear(dim, dim)
        self.query_spatial = nn.Linear(dim, dim) if spatial else None
        self.value, self.output = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(
        self,
        query: Tensor,
        query_position: Tensor,
        key: Tensor,
        key_position: Tensor,
        spatial: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Attends.

        Args:
            query, query_position: (B, Q, D).
            key, key_position: (B, K, D), the position also (K, D); the key is the value as well.
            spatial: (B, Q, D), needed if the module was made with ``spatial``.
            visible: bool, broadcast to (B, M, Q, K), False where a query must not see a key; None if every
                query sees every key.

        Returns:
            (B, Q, D).
        """
        located_key = self.key_position(key_position)  # (B, K, D) or (K, D)
        q, k = self.query_content(query), self.key_content(key)  # (B, Q, D), (B, K, D)
        if self.query_position is not None:
            q, k = q + self.query_position(query_position), k + located_key
        q, k, v = self._heads(q), self._heads(k), self._heads(self.value(key))  # (B, M, Q or K, D / M)
        if self.query_spatial is not None:
            q = torch.cat([q, self._heads(self.query_spatial(spatial))], -1)  # (B, M, Q, 2 * D / M)
            k = torch.cat([k, self._heads(located_key.expand_as(key))], -1)  # (B, M, K, 2 * D / M)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, visible, dropout)  # (B, M, Q, D / M)
        return self.output(attended.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, M, N, D / M)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
