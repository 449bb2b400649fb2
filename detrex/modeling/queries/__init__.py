"""Where queries come from, and where they are."""

from detrex.modeling.queries.denoising import ContrastiveDenoising, Denoising
from detrex.modeling.queries.group import InitialQueries, QueryGroup, QuerySource, blocked_pairs
from detrex.modeling.queries.learned import LearnedBoxes, LearnedPositions
from detrex.modeling.queries.position import (
    AnchorPosition,
    BoxPosition,
    ConditionalPosition,
    FixedPosition,
    QueryState,
)
from detrex.modeling.queries.proposals import BoxesFromMasks, EncodedProposals, ProposalQueries

__all__ = [
    "AnchorPosition",
    "BoxPosition",
    "BoxesFromMasks",
    "ConditionalPosition",
    "ContrastiveDenoising",
    "Denoising",
    "EncodedProposals",
    "FixedPosition",
    "InitialQueries",
    "LearnedBoxes",
    "LearnedPositions",
    "ProposalQueries",
    "QueryGroup",
    "QuerySource",
    "QueryState",
    "blocked_pairs",
]
