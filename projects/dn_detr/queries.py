"""The queries of DN-DETR (arXiv 2203.01305): the last channel says whether a query denoises.

Shape letters: Q queries, M labels, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.modeling import Denoising, LearnedBoxes


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


class IndicatedDenoising(Denoising):
    """Denoising queries in a fixed number of groups, with 1 in the last channel of their contents.

    Args:
        num_classes, label_noise, box_noise: see :class:`~detrex.modeling.Denoising`.
        hidden_dim: D.
        num_groups: groups of every batch with objects.
    """

    def __init__(
        self,
        num_classes: int,
        hidden_dim: int = 256,
        num_groups: int = 5,
        label_noise: float = 0.2,
        box_noise: float = 0.4,
    ):
        super().__init__(num_classes, hidden_dim - 1, 0, label_noise, box_noise, min_groups=num_groups)

    def _content(self, labels: Tensor) -> Tensor:
        return F.pad(super()._content(labels), (0, 1), value=1.0)
