"""The one kind of prediction that every head, layer and proposal stage makes.

Shape letters: B images, Q queries, C class logits, D mask embedding size, H and W pixels at stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Prediction:
    """Class, box and mask of every query.

    Attributes:
        logits: (B, Q, C) class logits.
        boxes: (B, Q, 4) normalised cxcywh in [0, 1], relative to the padded input.
        mask_embed: (B, Q, D); the mask logits of a query are its product with the per-pixel embedding.
            Masks are kept as embeddings because most of them are needed at few points, or not at all.
    """

    logits: Tensor
    boxes: Tensor
    mask_embed: Tensor | None = None

    @classmethod
    def concatenate(cls, predictions: list[Prediction]) -> Prediction:
        """One prediction with the queries of all predictions."""
        embeds = [p.mask_embed for p in predictions if p.mask_embed is not None]
        return cls(
            logits=torch.cat([p.logits for p in predictions], 1),
            boxes=torch.cat([p.boxes for p in predictions], 1),
            mask_embed=torch.cat(embeds, 1) if embeds else None,
        )

    def split(self, sizes: list[int]) -> list[Prediction]:
        """The predictions of consecutive ranges of queries."""
        embeds: Sequence[Tensor | None] = [None] * len(sizes)
        if self.mask_embed is not None:
            embeds = self.mask_embed.split(sizes, 1)
        parts = zip(self.logits.split(sizes, 1), self.boxes.split(sizes, 1), embeds, strict=True)
        return [Prediction(*part) for part in parts]

    def mask_logits(self, pixel_embed: Tensor) -> Tensor:
        """All masks (B, Q, H, W), as logits, for the per-pixel embedding (B, D, H, W).

        Raises:
            ValueError: the model predicts no masks.
        """
        if self.mask_embed is None:
            raise ValueError("this prediction is of a model without masks")
        return torch.einsum("bqd,bdhw->bqhw", self.mask_embed, pixel_embed)
