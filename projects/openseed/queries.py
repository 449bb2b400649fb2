"""OpenSeeD's queries (arXiv 2303.08131): those for things are proposals, those for stuff are learned.

Shape letters: B images, Q queries, N objects, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detrex.layers import at_least_single
from detrex.modeling import InitialQueries, OneToOne, PredictionHeads, ProposalQueries, QueryGroup, Truth
from detrex.modeling.assignment import SupervisedPrediction
from detrex.modeling.heads import PROPOSALS
from detrex.modeling.queries.group import MATCHING
from detrex.modeling.queries.proposals import ANCHOR_SIZES, PROPOSAL_SUFFIX
from detrex.structures import BatchTargets, Prediction, Pyramid

# A cost beyond that of any pair, as published.
FORBIDDEN = 1e4


class OneToOneOfKind(OneToOne):
    """Matches one to one the objects of one kind, things or stuff; those of the other kind get no query.

    Args:
        things: assign things; otherwise stuff.
    """

    def __init__(self, things: bool):
        super().__init__()
        self.things = things

    def values(self, cost: Tensor | None, reference: Tensor | None, truth: Truth) -> Tensor | None:  # noqa: ARG002
        """See :meth:`~detrex.modeling.Assignment.values`; they are infinite for objects of the other kind."""
        assert cost is not None
        return cost.masked_fill(truth.is_thing != self.things, torch.inf)

    def pairs(
        self,
        values: Sequence[Tensor | None],
        counts: Sequence[int],  # noqa: ARG002
    ) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`~detrex.modeling.Assignment.pairs`."""
        found = []
        for cost in values:
            assert cost is not None
            # Of another kind; a cost that is not finite because a run diverged is NaN.
            kept = (~(cost == torch.inf).all(0)).nonzero().squeeze(1)
            ((query, matched),) = super().pairs([cost[:, kept]], [len(kept)])
            found.append((query, kept[matched]))
        return found


class SplitByRank(OneToOne):
    """The matching of published OpenSeeD models without queries for stuff, which is an accident.

    A pair of a thing and a query from ``num_things`` on, or of stuff and an earlier query, costs 10000. If
    there are no more than ``num_things`` queries, stuff goes to the first free ones, whatever they predict.

    Args:
        num_things: queries for things.
    """

    def __init__(self, num_things: int = 300):
        super().__init__()
        self.num_things = num_things

    def values(self, cost: Tensor | None, reference: Tensor | None, truth: Truth) -> Tensor | None:  # noqa: ARG002
        """See :meth:`~detrex.modeling.Assignment.values`."""
        assert cost is not None
        for_things = torch.arange(len(cost), device=cost.device) < self.num_things
        return cost.masked_fill(for_things[:, None] != truth.is_thing, FORBIDDEN)


class DecoupledQueries(ProposalQueries):
    """Queries from proposals for things, and learned ones for stuff.

    Images without masks say nothing about stuff: queries for it take part there, but have no losses.

    Args:
        num_queries: for things.
        num_stuff: for stuff.
        hidden_dim, anchor_sizes, leave_out_invalid: see :class:`~detrex.modeling.ProposalQueries`.
    """

    def __init__(
        self,
        num_queries: int = 300,
        num_stuff: int = 100,
        hidden_dim: int = 256,
        anchor_sizes: Sequence[float] = ANCHOR_SIZES,
        leave_out_invalid: bool = True,
    ):
        things = OneToOneOfKind(things=True)
        super().__init__(
            num_queries,
            hidden_dim,
            anchor_sizes,
            assignment=things,
            proposal_assignment=things,
            leave_out_invalid=leave_out_invalid,
        )
        self.stuff_content = nn.Embedding(num_stuff, hidden_dim)
        self.stuff_reference = nn.Embedding(num_stuff, 4)
        self.stuff_assignment = OneToOneOfKind(things=False)

    def forward(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None,
        heads: PredictionHeads,
        targets: BatchTargets | None = None,
    ) -> InitialQueries:
        """See :class:`~detrex.modeling.queries.QuerySource`."""
        start = super().forward(memory, pixel_embed, heads, targets)
        (things,) = start.groups
        shape = (len(memory.tokens), -1, -1)
        content = self.stuff_content.weight.expand(shape)
        boxes = at_least_single(self.stuff_reference.weight).sigmoid().expand(shape)
        supervised = targets is None or targets.masks is not None
        # As in the training of published weights, the parameters here get gradients only from the losses of
        # proposals.
        stuff = QueryGroup(
            content.detach(), boxes.detach(), assignment=self.stuff_assignment if supervised else None
        )
        things.sees = stuff.sees = (MATCHING,)
        if supervised:
            logits, embed = heads.classify(PROPOSALS, content)  # (B, num_stuff, C or mask_dim)
            learned = SupervisedPrediction(
                Prediction(logits, boxes, embed), self.stuff_assignment, PROPOSAL_SUFFIX, boxes.detach()
            )
            start.supervised.append(learned)
        return InitialQueries([things, stuff], start.supervised)
