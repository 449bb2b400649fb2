"""Where queries come from, and where they are."""

from detrex.modeling.queries.denoising import (
    ContrastiveDenoising,
    Denoising,
    IndicatedDenoising,
    NoisedObjects,
)
from detrex.modeling.queries.group import InitialQueries, QueryGroup, QuerySource, blocked_pairs
from detrex.modeling.queries.learned import LearnedBoxes, LearnedPositions, LearnedSets, UniformBoxes
from detrex.modeling.queries.position import (
    AnchorPosition,
    BoxPosition,
    ConditionalPosition,
    FixedPosition,
    QueryState,
    ScaledBoxPosition,
    SinePosition,
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
    "IndicatedDenoising",
    "InitialQueries",
    "LearnedBoxes",
    "LearnedPositions",
    "LearnedSets",
    "NoisedObjects",
    "ProposalQueries",
    "QueryGroup",
    "QuerySource",
    "QueryState",
    "ScaledBoxPosition",
    "SinePosition",
    "UniformBoxes",
    "blocked_pairs",
]
