"""Poll-and-pool sampling (PnP-DETR, arXiv 2109.07036): the encoder gets the most informative tokens.

Shape letters: B images, S tokens of the map, N kept tokens, P pooled tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers import take_rows
from detrex.modeling import PlainEncoder
from detrex.structures import BatchTargets, PaddedImages, Pyramid


class TokenSampler(nn.Module):
    """Keeps the tokens with the highest scores, and pools the others into a few.

    Args:
        dim: D.
        num_pooled: P.
        kept: share of an image's tokens without padding that are kept, less than 1.

    Raises:
        ValueError: no tokens would be left for the pool.
    """

    def __init__(self, dim: int, num_pooled: int, kept: float):
        super().__init__()
        if not 0 <= kept < 1:
            raise ValueError(f"kept is {kept}; it is a share of the tokens below 1: the others are pooled")
        self.kept = kept
        self.score = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.ReLU(), nn.Conv2d(dim, 1, 1))
        self.pool_weight, self.pool_value = nn.Linear(dim, num_pooled), nn.Linear(dim, dim)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        """Tokens (B, P + N, D) of one level: the pooled ones, then the kept ones, as a map of one row.

        Its scores (B, N) are those of the kept tokens. N is the largest number in the batch; tokens beyond
        an image's number are padding.
        """
        padding = pyramid.padding
        if padding is None:
            padding = torch.zeros_like(pyramid.tokens[..., 0], dtype=torch.bool)
        scores = self.score(pyramid.level(0)).sigmoid().flatten(1)  # (B, S)
        position = pyramid.located_tokens - pyramid.tokens
        tokens = F.layer_norm(pyramid.tokens, pyramid.tokens.shape[-1:])  # (B, S, D)
        # If no image is padded, one number stands for all of them.
        sizes = [shape for (shape,) in pyramid.valid or (pyramid.shapes,)]
        counts = [torch.sym_int(self.kept * height * width) for height, width in sizes]
        order = scores.detach().masked_fill(padding, -1).sort(1, descending=True).indices
        index = order[:, : max(counts)]  # (B, N)
        top = scores.gather(1, index)
        rank = torch.empty_like(order).scatter(
            1, order, torch.arange(order.shape[1]).to(order).expand_as(order)
        )
        limit = counts[0] if pyramid.valid is None else torch.tensor(counts, device=order.device)[:, None]
        rest = ~padding & (rank >= limit)  # (B, S)
        logits = self.pool_weight(tokens).masked_fill(~rest[..., None], -torch.inf)
        weights = logits.softmax(1).transpose(1, 2)  # (B, P, S)
        kept = take_rows(tokens, index) * top[..., None]  # (B, N, D)
        places = torch.cat([weights @ position, take_rows(position, index)], 1)
        pooled = weights.shape[1]
        return Pyramid(
            torch.cat([weights @ self.pool_value(tokens), kept], 1),
            ((1, pooled + index.shape[1]),),
            None if pyramid.valid is None else tuple(((1, pooled + count),) for count in counts),
            places,
            top,
        )


class SampledEncoder(PlainEncoder):
    """A plain encoder of sampled tokens.

    Args:
        in_channels, hidden_dim, ffn_dim, num_heads, num_layers, dropout, prelu, temperature, scaled_position,
            checkpointing: see :class:`~detrex.modeling.PlainEncoder`.
        num_pooled: number of tokens into which the others are pooled.
        kept: share of an image's tokens that are kept.
        loss_weight: of the mean score of kept tokens as a loss, so that few of them have high scores.
    """

    def __init__(
        self,
        in_channels: Mapping[int, int],
        hidden_dim: int = 256,
        ffn_dim: int = 2048,
        num_heads: int = 8,
        num_layers: int = 6,
        dropout: float = 0.0,
        temperature: float = 10000.0,
        checkpointing: bool = False,
        num_pooled: int = 30,
        kept: float = 0.5,
        loss_weight: float = 1e-4,
    ):
        super().__init__(
            in_channels,
            hidden_dim,
            ffn_dim,
            num_heads,
            num_layers,
            dropout,
            temperature=temperature,
            checkpointing=checkpointing,
        )
        self.loss_weight = loss_weight
        self.sampler = TokenSampler(hidden_dim, num_pooled, kept)

    def forward(self, features: Mapping[int, Tensor], images: PaddedImages | None = None) -> Pyramid:
        """Encodes the sampled tokens, see :meth:`~detrex.modeling.PlainEncoder.forward`."""
        return self.refine(self.sampler(self.flatten(features, images)))

    def token_loss(
        self,
        memory: Pyramid,
        images: PaddedImages,  # noqa: ARG002
        targets: BatchTargets,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """See :class:`~detrex.modeling.TokenLoss`."""
        assert memory.scores is not None
        return {"sample_reg_loss": self.loss_weight * memory.scores.sum() / max(memory.scores.numel(), 1)}
