"""Denoising queries whose content is the embedded text of their object's class.

Shape letters: M labels, C classes, D channels of a query, E channels of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detrex.modeling.assignment import Known
from detrex.modeling.queries import NoisedObjects


class TextDenoising(NoisedObjects):
    """Makes denoising queries from ground truth, without noise on labels (OpenSeeD, arXiv 2303.08131).

    Args:
        embed_dim: E.
        hidden_dim, num_queries, box_noise, min_groups, supervise_initial: see
            :class:`~detrex.modeling.queries.NoisedObjects`.
        mean_over_classes: as published, take the class loss only for queries with an object, as a mean over
            classes instead of a sum, multiplied by the number of denoising queries. Otherwise, it is the loss
            of other denoising queries.
    """

    def __init__(
        self,
        embed_dim: int = 512,
        hidden_dim: int = 256,
        num_queries: int = 100,
        box_noise: float = 0.4,
        min_groups: int = 0,
        supervise_initial: bool = True,
        mean_over_classes: bool = True,
    ):
        content = WordContent(embed_dim, hidden_dim)
        super().__init__(content, num_queries, box_noise, min_groups, supervise_initial)
        self.mean_over_classes = mean_over_classes

    def _assignment(self, blocks: int, size: int) -> Known:
        return KnownMeanOverClasses(blocks, size) if self.mean_over_classes else Known(blocks, size)


class WordContent(nn.Module):
    """The content of a query from the embedding of its class.

    Args:
        embed_dim: E.
        hidden_dim: D.

    Attributes:
        words: (C, E) embeddings of the classes, with gradient in training.
    """

    words: Tensor

    def __init__(self, embed_dim: int, hidden_dim: int):
        super().__init__()
        self.mapper = nn.Parameter(torch.empty(embed_dim, hidden_dim))
        nn.init.normal_(self.mapper, std=embed_dim**-0.5)
        self.register_buffer("words", torch.zeros(0, embed_dim), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        """Embeds labels (M,) as contents (M, D)."""
        return self.words[labels] @ self.mapper  # (M, E) @ (E, D)


class KnownMeanOverClasses(Known):
    """Like :class:`~detrex.modeling.Known`, with the class loss of OpenSeeD's denoising queries."""

    def class_loss_factors(self, has_object: Tensor, num_classes: int) -> Tensor:
        """See :meth:`detrex.modeling.Assignment.class_loss_factors`."""
        return has_object * (self.blocks * self.size / max(num_classes, 1))
