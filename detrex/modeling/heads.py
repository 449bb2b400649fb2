"""The prediction heads: one set for proposals, the initial prediction and every decoder layer."""

from __future__ import annotations

import math

from torch import Tensor, nn

from detrex.layers import MLP

# Probability that a freshly initialised focal classifier gives to every class (RetinaNet, arXiv 1708.02002).
PRIOR_PROBABILITY = 0.01


class PredictionHeads(nn.Module):
    """Class, box and mask heads over query features, with the norm before them.

    Args:
        hidden_dim: channels D of the queries.
        num_classes: C.
        mask_dim: size of the mask embedding.
        no_object_class: whether the classifier has a last logit for "no object" (softmax losses).
    """

    def __init__(self, hidden_dim: int, num_classes: int, mask_dim: int, no_object_class: bool = False):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_dim)
        self.classes = nn.Linear(hidden_dim, num_classes + no_object_class)
        self.box = MLP(hidden_dim, hidden_dim, 4, 3)
        self.mask = MLP(hidden_dim, hidden_dim, mask_dim, 3)
        if not no_object_class:
            nn.init.constant_(self.classes.bias, math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY)))
        nn.init.zeros_(self.box.layers[-1].weight)
        nn.init.zeros_(self.box.layers[-1].bias)

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, Q, C) and mask embeddings (B, Q, mask_dim) of features (B, Q, D)."""
        normed = self.norm(features)
        return self.classes(normed), self.mask(normed)
