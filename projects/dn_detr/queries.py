"""The queries of DN-DETR (arXiv 2203.01305): the last channel says whether a query denoises.

Shape letters: Q queries, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.modeling import LearnedBoxes


class IndicatedBoxes(LearnedBoxes):
    """Learned boxes that share one learned content, with 0 in its last channel.

    Args:
        num_queries: Q.
        hidden_dim: D.
    """

    def __init__(self, num_queries: int = 300, hidden_dim: int = 256):
        super().__init__(num_queries, hidden_dim, learned_content=False)
        self.content = nn.Parameter(torch.randn(hidden_dim - 1))

    def contents(self) -> Tensor:
        return F.pad(self.content, (0, 1)).expand(self.num_queries, -1)
