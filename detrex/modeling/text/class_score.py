"""Class logits from the similarity of queries and texts.

Shape letters: C classes, D channels of a query, E channels of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detrex.modeling.class_score import SigmoidScore
from detrex.modeling.text.encoder import unit_length


class TextScore(SigmoidScore):
    """Sigmoid scores whose logits are scaled cosines of queries and embeddings of texts.

    Args:
        embed_dim: E.
        alpha, gamma, temperature, cost_eps: see :class:`~detrex.modeling.SigmoidScore`.
    """

    def __init__(
        self,
        embed_dim: int = 512,
        alpha: float = 0.25,
        gamma: float = 2.0,
        temperature: float = 0.06,
        cost_eps: float = 1e-6,
    ):
        super().__init__(alpha, gamma, temperature, cost_eps)
        self.embed_dim = embed_dim

    def classifier(self, hidden_dim: int, num_classes: int) -> nn.Module:  # noqa: ARG002
        """A projection into the space of texts, without bias; the classes are given as texts."""
        return CosineClassifier(hidden_dim, self.embed_dim)


class CosineClassifier(nn.Module):
    """Logits of classes that are known by their embeddings.

    Args:
        hidden_dim: D.
        embed_dim: E.

    Attributes:
        words: (C, E) the embedding of each class, scaled to the length that is the logit of a cosine of 1.
    """

    words: Tensor

    def __init__(self, hidden_dim: int, embed_dim: int):
        super().__init__()
        self.projection = nn.Parameter(torch.empty(hidden_dim, embed_dim))
        nn.init.normal_(self.projection, std=hidden_dim**-0.5)
        self.register_buffer("words", torch.zeros(0, embed_dim), persistent=False)

    def forward(self, content: Tensor) -> Tensor:
        """Logits (..., C) of content (..., D)."""
        return unit_length(content @ self.projection) @ self.words.t().to(content.dtype)  # (..., E) @ (E, C)
