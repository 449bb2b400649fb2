"""Focus-DETR (arXiv 2307.12612): the encoder refines only the tokens that seem to belong to objects.

Shape letters: B images, S tokens, Q tokens that a layer works on, C classes, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers import FocusEncoderLayer, ForegroundPredictor, at_most, put_rows, take_rows
from detrex.modeling import DeformableEncoder, Detector, ForegroundLoss
from detrex.modeling.encoder import run
from detrex.structures import PaddedImages, Pyramid


class FocusDetector(Detector):
    """A detector whose encoder scores its tokens by the norm and class head of the proposals."""

    def encode(self, features: Mapping[int, Tensor], images: PaddedImages | None) -> Pyramid:
        """See :meth:`~detrex.modeling.Detector.encode`."""
        normalise = self.decoder.query_init.candidates
        return self.encoder(
            features, images, lambda memory: normalise(memory)[0], self.decoder.heads.proposal_logits
        )


class FocusEncoder(DeformableEncoder):
    """Scores tokens as foreground, and refines fewer of them from layer to layer.

    Args:
        in_channels, strides, hidden_dim, ffn_dim, num_heads, num_points, num_layers, dropout,
            position_offset, checkpointing, temperature: see :class:`~detrex.modeling.DeformableEncoder`.
        kept: share of an image's tokens that the first layer refines.
        layer_shares: for each layer, the share of these that it refines; further layers have the last one.
        loss_weight: of :class:`~detrex.modeling.ForegroundLoss`.
        object_tokens: number of tokens of each layer that attend to one another: those with the highest
            product of class logit and foreground score.
    """

    layer_type = FocusEncoderLayer

    def __init__(
        self,
        in_channels: Mapping[int, int],
        strides: Sequence[int] = (8, 16, 32, 64),
        hidden_dim: int = 256,
        ffn_dim: int = 2048,
        num_heads: int = 8,
        num_points: int = 4,
        num_layers: int = 6,
        dropout: float = 0.0,
        position_offset: float = 0.0,
        checkpointing: bool = False,
        temperature: float = 10000.0,
        kept: float = 0.5,
        layer_shares: Sequence[float] = (1.0, 0.8, 0.6, 0.6, 0.4, 0.2),
        object_tokens: int = 300,
        loss_weight: float = 1.5,
    ):
        super().__init__(
            in_channels, strides, hidden_dim, ffn_dim, num_heads, num_points, num_layers, dropout,
            position_offset, checkpointing, temperature,
        )  # fmt: skip
        self.kept, self.layer_shares, self.object_tokens = kept, tuple(layer_shares), object_tokens
        self.foreground = ForegroundPredictor(hidden_dim)
        self.token_loss = ForegroundLoss(strides, loss_weight)
        self.modulation = nn.Parameter(torch.empty(len(strides) - 1).uniform_(-0.3, 0.3))

    def forward(  # type: ignore[override]  # it shares parts with the decoder
        self,
        features: Mapping[int, Tensor],
        images: PaddedImages | None,
        normalise: Callable[[Pyramid], Tensor],
        classify: Callable[[Tensor], Tensor],
    ) -> Pyramid:
        """Encodes; see :meth:`~detrex.modeling.DeformableEncoder.forward`.

        Args:
            normalise: tokens of a pyramid as proposals see them, (B, S, D).
            classify: class logits (B, Q, C) of tokens (B, Q, D).
        """
        memory = self.flatten(features, images)  # what all layers attend to
        scores = self._foreground(normalise(memory.with_tokens(memory.located_tokens)), memory)  # (B, S)
        chosen, counts = self._choose(scores.detach(), memory)
        tokens, reference = memory.tokens, memory.on_levels(memory.cell_centres())
        position = memory.located_tokens - tokens  # (B, S, D)
        reference = reference.expand(tokens.shape[0], -1, -1, -1)
        for i, layer in enumerate(self.layers):
            share = self.layer_shares[min(i, len(self.layer_shares) - 1)]
            index = chosen[:, : torch.sym_max(1, torch.sym_int(share * chosen.shape[1]))]  # (B, Q)
            rows, places = take_rows(tokens, index), take_rows(position, index)
            around = take_rows(reference.flatten(2), index).unflatten(2, reference.shape[2:])
            with torch.no_grad():
                worth = classify(rows).amax(-1) * scores.gather(1, index)
                objects = worth.topk(at_most(self.object_tokens, index.shape[1]), 1).indices
            refined = run(
                layer, rows, places, objects, around, memory,
                checkpointing=self.checkpointing and self.training,
            )  # fmt: skip
            if counts is not None:
                # In every image, as many are chosen as the largest needs; smaller images keep fewer of them.
                within = torch.arange(index.shape[1], device=index.device) < counts[:, None]
                refined = torch.where(within[..., None], refined, rows)
            tokens = put_rows(tokens, index, refined)
        return memory.with_tokens(tokens).with_scores(scores)

    def _foreground(self, tokens: Tensor, memory: Pyramid) -> Tensor:
        """Logits (B, S) that tokens belong to objects; each level also gets those of the coarser level."""
        scores: list[Tensor] = []  # (B, 1, H, W) of the levels, coarsest first
        levels = zip(tokens.split(memory.sizes, 1), memory.shapes, strict=True)
        for number, (level, shape) in enumerate(reversed(list(levels))):
            if scores:
                coarser = _stretch(scores[-1], shape)
                level = level * (1 + coarser.flatten(2).transpose(1, 2) * self.modulation[number - 1])
            scores.append(self.foreground(level).unflatten(1, (1, *shape)))
        return torch.cat([level.flatten(1) for level in reversed(scores)], 1)

    def _choose(self, scores: Tensor, memory: Pyramid) -> tuple[Tensor, Tensor | None]:
        """The tokens (B, Q) with the highest scores, best first, and how many of them each image takes (B,).

        The second is None if no image is padded: then each image takes all of them.
        """
        counts = [
            torch.sym_int(self.kept * sum(h * w for h, w in levels)) + 1
            for levels in memory.valid or (memory.shapes,)
        ]
        if memory.padding is None:
            return scores.topk(at_most(counts[0], scores.shape[1]), 1).indices, None
        scores = scores.masked_fill(memory.padding, scores.min())
        most = min(max(counts), scores.shape[1])
        return scores.topk(most, 1).indices, torch.tensor(counts, device=scores.device)


def _stretch(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Maps (B, 1, H, W) resized linearly to ``shape``, corners to corners.

    Like ``interpolate``, but without asking whether there is only one cell, which an export does not know.
    """
    y, x = (
        2 * torch.arange(n, device=maps.device, dtype=maps.dtype) / torch.sym_max(n - 1, 1) - 1 for n in shape
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (H, W, 2)
    return F.grid_sample(maps, grid.expand(maps.shape[0], -1, -1, -1), align_corners=True)
