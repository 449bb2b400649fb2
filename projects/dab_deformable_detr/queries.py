"""What is DAB-Deformable-DETR's own: learned boxes, and a position that the content scales.

DAB-DETR (arXiv 2201.12329) with deformable attention. Shape letters: B images, Q queries, D channels.
"""

from __future__ import annotations

import torch
from torch import nn

from detrex.layers import MLP, QueryPosition, inverse_sigmoid
from detrex.modeling import BoxPosition, LearnedBoxes
from detrex.modeling.queries import QueryState

# The logits of the first boxes lie within plus and minus this.
LARGEST_LOGIT = 3.0


class UniformBoxes(LearnedBoxes):
    """Learned boxes that start evenly spread, with contents that start from 0.

    Args:
        num_queries: Q.
        hidden_dim: D.
    """

    def __init__(self, num_queries: int = 300, hidden_dim: int = 256):
        super().__init__(num_queries, hidden_dim, learned_content=True)
        nn.init.zeros_(self.content.weight)
        with torch.no_grad():
            spread = inverse_sigmoid(torch.rand_like(self.reference.weight))
            self.reference.weight.copy_(spread.clamp(-LARGEST_LOGIT, LARGEST_LOGIT))


class ScaledBoxPosition(BoxPosition):
    """The position of boxes, which from the second layer on is scaled by a function of the content.

    Args:
        hidden_dim: D.
    """

    def __init__(self, hidden_dim: int = 256):
        super().__init__(hidden_dim)
        self.scale = MLP(hidden_dim, hidden_dim, hidden_dim, 2)

    def forward(self, queries: QueryState) -> QueryPosition:
        """The encoding (B, Q, D) and the reference on all levels."""
        position = super().forward(queries)
        if queries.layer > 0:  # the content of the first layer says nothing yet
            position.encoding = position.encoding * self.scale(queries.content)
        return position
