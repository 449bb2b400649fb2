"""The matching queries of DN-Deformable-DETR (arXiv 2203.01305): 0 in the last channel of their contents."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from detrex.modeling import UniformBoxes


class IndicatedUniformBoxes(UniformBoxes):
    """Learned boxes that start evenly spread; the last channel of their learned contents is always 0.

    Args:
        num_queries: Q.
        hidden_dim: D.
    """

    def __init__(self, num_queries: int = 300, hidden_dim: int = 256):
        super().__init__(num_queries, hidden_dim - 1)

    def contents(self) -> Tensor:
        """Content of the queries, (Q, D)."""
        return F.pad(super().contents(), (0, 1))
