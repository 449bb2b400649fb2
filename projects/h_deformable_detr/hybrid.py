"""Hybrid matching (H-DETR, arXiv 2207.13080): a second group of queries in training, matched one to many."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from detrex.modeling import DecoderOutput, EncodedProposals, InitialQueries, PredictionHeads, SetCriterion
from detrex.modeling.supervision import Part
from detrex.structures import Pyramid


class HybridProposals(EncodedProposals):
    """The best proposals become queries; in training the next best ones become a second group.

    Args:
        num_queries: of the first group, which inference uses.
        num_extra: of the second group.
        others: see :class:`~detrex.modeling.EncodedProposals`.
    """

    def __init__(self, num_queries: int = 300, num_extra: int = 1500, **others):
        super().__init__(num_queries + num_extra, **others)
        self.first_group = num_queries

    def forward(self, memory: Pyramid, pixel_embed: Tensor | None, heads: PredictionHeads) -> InitialQueries:
        """Arguments as of :meth:`~detrex.modeling.ProposalQueries.forward`."""
        start = super().forward(memory, pixel_embed, heads)
        total = start.content.shape[1]  # fewer in small images, perhaps too few for a second group
        first = min(self.first_group, total)
        if self.training and first < total:
            return replace(start, group_sizes=[first, total - first])
        kept = {name: getattr(start, name)[:, :first] for name in ("content", "reference", "position")}
        return replace(start, **kept)


class HybridCriterion(SetCriterion):
    """Matches the first group one to one, and ``copies`` queries of the second to every object.

    Args:
        copies: see :class:`~detrex.modeling.supervision.Part`.
        others: see :class:`~detrex.modeling.SetCriterion`.
    """

    def __init__(self, copies: int = 6, **others):
        super().__init__(**others)
        self.copies = copies

    def parts(self, output: DecoderOutput) -> list[Part]:
        parts = super().parts(replace(output, groups=[]))
        for layers in output.groups:
            many = super().parts(DecoderOutput(layers))
            parts += [replace(p, suffix=f"{p.suffix}_one2many", copies=self.copies) for p in many]
        return parts
