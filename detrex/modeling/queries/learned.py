"""Learned queries, the same for every image.

Shape letters: B images, Q queries, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detrex.layers import at_least_single, inverse_sigmoid
from detrex.modeling.assignment import Assignment, OneToOne, SetsToOne
from detrex.modeling.heads import PredictionHeads
from detrex.modeling.queries.group import MATCHING, InitialQueries, QueryGroup
from detrex.structures import BatchTargets, Pyramid

# The logits of evenly spread first boxes lie between minus and plus this.
LARGEST_LOGIT = 3.0


class LearnedBoxes(nn.Module):
    """Every query has a learned box (DAB-DETR, arXiv 2201.12329; Mask DINO's semantic models).

    Args:
        num_queries: Q.
        hidden_dim: D.
        learned_content: whether contents are also learned; otherwise they start from 0.
        assignment: of objects to queries; one to one by default.
        num_patterns: number of learned contents with which each box is combined, instead of one content per
            box (Anchor DETR, arXiv 2109.07107). There are then ``num_patterns * Q`` queries, ordered by
            pattern. 0 for none.

    Raises:
        ValueError: both ``num_patterns`` and ``learned_content`` are set.
    """

    def __init__(
        self,
        num_queries: int = 300,
        hidden_dim: int = 256,
        learned_content: bool = True,
        assignment: Assignment | None = None,
        num_patterns: int = 0,
    ):
        super().__init__()
        if num_patterns and learned_content:
            raise ValueError(
                "contents come from patterns or are learned for every box: learned_content=false"
            )
        self.num_queries, self.hidden_dim, self.num_patterns = num_queries, hidden_dim, num_patterns
        self.patterns = nn.Embedding(num_patterns, hidden_dim) if num_patterns else None
        self.content = nn.Embedding(num_queries, hidden_dim) if learned_content else None
        self.reference = nn.Embedding(num_queries, 4)
        self.assignment = assignment or OneToOne()

    def forward(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None,  # noqa: ARG002
        heads: PredictionHeads,  # noqa: ARG002
        targets: BatchTargets | None = None,  # noqa: ARG002
    ) -> InitialQueries:
        """See :class:`~detrex.modeling.queries.QuerySource`."""
        shape = (memory.tokens.shape[0], -1, -1)
        reference = at_least_single(self.reference.weight).sigmoid()  # (Q, 4)
        reference = reference.repeat(max(self.num_patterns, 1), 1)  # (Q, 4), or (num_patterns * Q, 4)
        group = QueryGroup(self.contents().expand(shape), reference.expand(shape), assignment=self.assignment)
        return InitialQueries([group])

    def contents(self) -> Tensor:
        """Content of the queries, (Q, D) or (num_patterns * Q, D)."""
        if self.content is not None:
            return self.content.weight
        if self.patterns is not None:
            return self.patterns.weight.repeat_interleave(self.num_queries, 0)
        return self.reference.weight.new_zeros(self.num_queries, self.hidden_dim)


class UniformBoxes(LearnedBoxes):
    """Learned boxes that start evenly spread, with contents that start from 0 (DAB-Deformable-DETR).

    Args:
        num_queries: Q.
        hidden_dim: D.
    """

    def __init__(self, num_queries: int = 300, hidden_dim: int = 256):
        super().__init__(num_queries, hidden_dim)
        assert self.content is not None
        nn.init.zeros_(self.content.weight)
        with torch.no_grad():
            spread = inverse_sigmoid(torch.rand_like(self.reference.weight))  # (Q, 4)
            self.reference.weight.copy_(spread.clamp(-LARGEST_LOGIT, LARGEST_LOGIT))


class LearnedSets(nn.Module):
    """Learned boxes in sets that share an object; queries of a set start close to one another.

    CO-MOT, arXiv 2305.12724. Boxes are learned directly, without a sigmoid.

    Args:
        num_queries: number of sets.
        set_size: number of queries in a set; they follow one another.
        hidden_dim: D.
    """

    def __init__(self, num_queries: int = 60, set_size: int = 3, hidden_dim: int = 256):
        super().__init__()
        self.num_queries, self.set_size = num_queries, set_size
        self.content, self.reference = nn.Embedding(num_queries, hidden_dim), nn.Embedding(num_queries, 4)
        self.content_offset = nn.Embedding(num_queries * set_size, hidden_dim)
        self.reference_offset = nn.Embedding(num_queries * set_size, 4)
        nn.init.uniform_(self.reference.weight)
        nn.init.normal_(self.content_offset.weight, std=0.1)
        nn.init.zeros_(self.reference_offset.weight)
        self.assignment: Assignment = SetsToOne(set_size)

    def start(self) -> tuple[Tensor, Tensor]:
        """Contents (1, Q, D) and boxes (1, Q, 4) of the queries of all sets."""
        content = self.content.weight.repeat_interleave(self.set_size, 0) + self.content_offset.weight
        reference = at_least_single(self.reference.weight).repeat_interleave(self.set_size, 0)
        return content[None], (reference + self.reference_offset.weight)[None]

    def forward(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None,  # noqa: ARG002
        heads: PredictionHeads,  # noqa: ARG002
        targets: BatchTargets | None = None,  # noqa: ARG002
    ) -> InitialQueries:
        """See :class:`~detrex.modeling.queries.QuerySource`. The queries see all groups that make results."""
        content, reference = (v.expand(len(memory.tokens), -1, -1) for v in self.start())
        return InitialQueries([QueryGroup(content, reference, None, self.assignment, sees=(MATCHING,))])


class LearnedPositions(nn.Module):
    """Every query has a learned position encoding (DETR, Deformable and Conditional DETR).

    Args:
        num_queries: Q.
        hidden_dim: D.
        learned_content: whether contents are also learned; otherwise they start from 0.
        point: turns positions (Q, D) into logits of points (x, y); None for queries without a reference.
        num_groups: number of groups of ``num_queries`` side by side in training (Group DETR, arXiv
            2207.13085).
        see_other_groups: whether queries see those of the other groups.
    """

    def __init__(
        self,
        num_queries: int = 300,
        hidden_dim: int = 256,
        learned_content: bool = False,
        point: nn.Module | None = None,
        num_groups: int = 1,
        see_other_groups: bool = False,
    ):
        super().__init__()
        self.num_queries, self.num_groups, self.see_other_groups = num_queries, num_groups, see_other_groups
        self.position = nn.Embedding(num_queries * num_groups, hidden_dim)
        self.content = nn.Embedding(num_queries * num_groups, hidden_dim) if learned_content else None
        self.point = point

    def forward(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None,  # noqa: ARG002
        heads: PredictionHeads,  # noqa: ARG002
        targets: BatchTargets | None = None,  # noqa: ARG002
    ) -> InitialQueries:
        """See :class:`~detrex.modeling.queries.QuerySource`."""
        groups = self.num_groups if self.training else 1
        used = slice(groups * self.num_queries)
        position = self.position.weight[used]  # (groups * num_queries, D)
        content = torch.zeros_like(position) if self.content is None else self.content.weight[used]
        shape = (memory.tokens.shape[0], -1, -1)
        reference = None
        if self.point is not None:
            reference = at_least_single(self.point(position)).sigmoid().expand(shape)  # (B, Q, 2)
        group = QueryGroup(
            content.expand(shape),
            reference,
            position.expand(shape),
            OneToOne(blocks=groups),
            blocks=1 if self.see_other_groups else groups,
        )
        return InitialQueries([group])
