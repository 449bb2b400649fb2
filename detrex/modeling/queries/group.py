"""A group of queries: the type that carries queries from their source to the decoder.

Shape letters: B images, Q queries of a group, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from detrex.modeling.assignment import Assignment, OneToOne, SupervisedPrediction
from detrex.modeling.heads import PredictionHeads
from detrex.structures import BatchTargets, Pyramid

MATCHING = "matching"


@dataclass
class QueryGroup:
    """Queries that start in the same way, see the same other queries, and are supervised in the same way.

    Attributes:
        content: (B, Q, D).
        reference: (B, Q, 4) cxcywh boxes or (B, Q, 2) points (x, y), normalised, in [0, 1]; None for queries
            without a position in the image.
        position: (B, Q, D) learned position encoding, or None if it follows from the reference.
        assignment: decides which objects the queries answer for; None for queries without losses.
        name: used in ``sees`` of other groups. Groups of the name "matching" make the results.
        sees: names of the other groups that these queries see in self-attention.
        blocks: number of equal ranges of the queries; each range sees only itself and the groups of ``sees``.
        loss_suffix: ending of the names of the group's losses. ``{stage}`` stands for the stage of the
            decoder: "_0", "_1", ..., and nothing for the last layer.
        supervise_initial: whether the prediction before the first layer, if the decoder makes one, is also
            supervised.
    """

    content: Tensor
    reference: Tensor | None = None
    position: Tensor | None = None
    assignment: Assignment | None = field(default_factory=OneToOne)
    name: str = MATCHING
    sees: Sequence[str] = ()
    blocks: int = 1
    loss_suffix: str = "{stage}"
    supervise_initial: bool = True

    @property
    def size(self) -> int:
        """The number of queries, Q."""
        return self.content.shape[1]


@dataclass
class InitialQueries:
    """The result of a source of queries.

    Attributes:
        groups: the queries.
        supervised: predictions made along the way that are supervised as they are, such as proposals.
    """

    groups: list[QueryGroup]
    supervised: list[SupervisedPrediction] = field(default_factory=list)


class QuerySource(Protocol):
    """Makes the first queries of a decoder."""

    def __call__(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None,
        heads: PredictionHeads,
        targets: BatchTargets | None = None,
    ) -> InitialQueries:
        """Makes queries.

        Args:
            memory: encoded tokens (B, S, D).
            pixel_embed: (B, mask_dim, H / 4, W / 4), or None without masks.
            heads: the decoder's prediction heads.
            targets: ground truth in training, for sources that use it.
        """
        ...


def join(groups: Sequence[QueryGroup]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Content, reference and learned position of all groups, one group after another.

    Raises:
        ValueError: if only some of the groups have a reference or a position, or references are boxes in some
            groups and points in others.
    """
    kinds = {(None if g.reference is None else g.reference.shape[-1], g.position is not None) for g in groups}
    if len(kinds) > 1:
        described = "; ".join(f"'{g.name}' starts from {_start(g)}" for g in groups)
        raise ValueError(
            f"groups of queries that share a decoder must start alike, but {described}. Denoising queries "
            "are boxes: set model.denoising to null, or model.decoder.query_init to LearnedBoxes or "
            "ProposalQueries"
        )
    return (
        torch.cat([g.content for g in groups], 1),
        _join([g.reference for g in groups]),
        _join([g.position for g in groups]),
    )


def blocked_pairs(groups: Sequence[QueryGroup]) -> Tensor | None:
    """Attention mask over the queries of all groups, (Q, Q) bool; None if every query sees all queries.

    An entry is True if the query of its row must not see the query of its column.
    """
    if len(groups) == 1:  # the number of blocks may be open while a graph is traced
        (group,) = groups
        if statically_known_true(group.blocks == 1):
            return None
        block = torch.arange(group.size, device=group.content.device) // (group.size // group.blocks)
        return block[:, None] != block
    # Plain numbers, so that decisions that depend on them can be made while tracing, too.
    owners = [(i, group) for i, group in enumerate(groups) for _ in range(group.blocks)]
    visible = [
        [row == column or (i != j and b.name in a.sees) for column, (j, b) in enumerate(owners)]
        for row, (i, a) in enumerate(owners)
    ]  # (blocks, blocks)
    if all(map(all, visible)):
        return None
    sizes = torch.tensor([g.size // g.blocks for g in groups for _ in range(g.blocks)])
    device = groups[0].content.device
    block = torch.arange(len(owners)).repeat_interleave(sizes).to(device, non_blocking=True)  # (Q,)
    blocked = ~torch.tensor(visible).to(device, non_blocking=True)  # (blocks, blocks)
    return blocked[block[:, None], block]


def _join(values: Sequence[Tensor | None]) -> Tensor | None:
    present = [value for value in values if value is not None]
    return torch.cat(present, 1) if present else None


def _start(group: QueryGroup) -> str:
    if group.reference is None:
        start = "no place"
    else:
        start = "boxes" if group.reference.shape[-1] == 4 else "points"
    return f"{start} and a learned position" if group.position is not None else start
