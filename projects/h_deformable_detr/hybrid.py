"""Hybrid matching (H-DETR, arXiv 2207.13080): a second group of queries in training, matched one to many.

Shape letters: B images, Q queries, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from detrex.modeling import Assignment, EncodedProposals, OneToMany, QueryGroup
from detrex.modeling.queries.proposals import ANCHOR_SIZES


class HybridProposals(EncodedProposals):
    """The best proposals become queries; in training the next best ones become a second group.

    Positions come from the proposals' boxes, contents are learned.

    Args:
        num_queries: of the first group, which inference uses.
        num_extra: of the second group; fewer if the image has fewer tokens.
        extra_assignment: of objects to queries of the second group; by default six queries for each object.
        hidden_dim, anchor_sizes: see :class:`~detrex.modeling.EncodedProposals`.
    """

    def __init__(
        self,
        num_queries: int = 300,
        num_extra: int = 1500,
        hidden_dim: int = 256,
        anchor_sizes: Sequence[float] = ANCHOR_SIZES,
        extra_assignment: Assignment | None = None,
    ):
        super().__init__(num_queries + num_extra, hidden_dim, anchor_sizes)
        self.first_group, self.extra_assignment = num_queries, extra_assignment or OneToMany(copies=6)
        self.content = nn.Embedding(num_queries + num_extra, hidden_dim)

    def start(self, tokens: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Content and position of queries (B, Q, D), best first."""
        _, position = super().start(tokens, boxes)
        return self.content.weight[: tokens.shape[1]].expand_as(tokens), position

    def groups(self, content: Tensor, boxes: Tensor, position: Tensor) -> list[QueryGroup]:
        """The group of the best queries, and in training also that of the others."""
        best, rest = slice(self.first_group), slice(self.first_group, None)
        groups = [QueryGroup(content[:, best], boxes[:, best], position[:, best], self.assignment)]
        if self.training:
            extra = QueryGroup(
                content[:, rest],
                boxes[:, rest],
                position[:, rest],
                self.extra_assignment,
                name="one to many",
                loss_suffix="{stage}_one2many",
            )
            groups.append(extra)
        return groups
