"""The layer of multi-scale deformable attention (Deformable DETR, arXiv 2010.04159), on ``detrex.ops``.

Shape letters: B images, Q queries, M heads, L levels, P points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detrex.layers.tracing import is_traced
from detrex.ops import attend_around, multi_scale_deformable_attention
from detrex.structures import Pyramid


class DeformableAttention(nn.Module):
    """Every query attends to ``num_points`` learned positions per head and level around its reference.

    Args:
        dim: channels of queries and tokens.
        num_heads, num_levels, num_points: as in the paper.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, dim: int = 256, num_heads: int = 8, num_levels: int = 4, num_points: int = 4):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"hidden size {dim} is not a multiple of the number of heads {num_heads}")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling_offsets = nn.Linear(dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Heads look in different directions and points at growing distance, as the paper starts them."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)  # (M,)
        direction = torch.stack([angle.cos(), angle.sin()], -1)  # (M, 2)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.num_points + 1)
        offsets = direction[:, None, None] * distance[:, None]  # (M, 1, P, 2)
        offsets = offsets.expand(-1, self.num_levels, -1, -1)  # (M, L, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, reference: Tensor, memory: Pyramid) -> Tensor:
        """Attends.

        Args:
            query: (B, Q, dim).
            reference: (B or 1, Q, L or 1, 2) normalised (x, y) on every level, or (B or 1, Q, L or 1, 4)
                cxcywh.
            memory: tokens (B, S, dim) of L levels; tokens of masked padding count as zeros.

        Returns:
            (B, Q, dim).

        Raises:
            ValueError: if the memory does not have ``num_levels`` levels.
        """
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        if len(memory.shapes) != levels:
            raise ValueError(
                f"the encoder gives {len(memory.shapes)} levels, this attention takes {levels}: set "
                "model.decoder.layers.num_levels to the number of model.encoder.strides"
            )
        value = self.value_proj(memory.tokens)  # (B, S, dim)
        if memory.padding is not None:
            value = value.masked_fill(memory.padding[..., None], 0)
        value = value.unflatten(-1, (heads, -1))  # (B, S, M, dim / M)
        offsets = self.sampling_offsets(query).unflatten(-1, (heads, levels, points, 2))
        logits = self.attention_weights(query).unflatten(-1, (heads, levels * points))
        if not is_traced():
            by_level = logits.unflatten(-1, (levels, points))
            found = attend_around(value, memory.shapes, reference, offsets, by_level)
            if found is not None:
                return self.output_proj(found)
        weights = logits.softmax(-1)
        locations = self._locations(offsets, reference[:, :, None, :, None], memory)  # (B, Q, M, L, P, 2)
        output = multi_scale_deformable_attention(
            value, memory.shapes, locations, weights.unflatten(-1, (levels, points))
        )
        return self.output_proj(output)  # (B, Q, dim)

    def _locations(self, offsets: Tensor, reference: Tensor, memory: Pyramid) -> Tensor:
        """Adds offsets to references: in cells of the level for points, in half sides for boxes."""
        if reference.shape[-1] == 2:
            # Repeated for every point: dividing by numbers that repeat in memory takes five times as long.
            return reference + offsets / memory.cells[:, None].repeat(1, self.num_points, 1)
        return reference[..., :2] + offsets / self.num_points * reference[..., 2:] * 0.5
