"""Align-DETR (arXiv 2304.07527): a class score that is aligned with the quality of boxes, and mixed matching.

Shape letters: B images, Q queries, C classes, M matched pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detrex.modeling import Assignment, ClassTargets, OneToMany, SigmoidScore

# Lowest target of a pair's class, even if its boxes do not overlap.
LEAST_ALIGNMENT = 0.01


class AlignedScore(SigmoidScore):
    """Sigmoid classes that learn a mean of probability and IoU (IA-BCE).

    Args:
        probability_share: exponent of the probability; that of the IoU is 1 minus this.
        background_gamma: exponent of the probability in the loss of classes that are not there.
        rank_decay: of several queries for one object, that of rank r (from 0) weighs exp(-r / rank_decay).
        temperature: see :class:`~detrex.modeling.SigmoidScore`.
    """

    uses_quality = True

    def __init__(
        self,
        probability_share: float = 0.25,
        background_gamma: float = 2.0,
        rank_decay: float = 1.5,
        temperature: float = 0.06,
    ):
        super().__init__(temperature=temperature)
        self.probability_share, self.background_gamma = probability_share, background_gamma
        self.rank_decay = rank_decay

    def pair_weights(self, logits: Tensor, quality: Tensor, same_object: Tensor) -> Tensor:
        """See :meth:`~detrex.modeling.ClassScore.pair_weights`: they fall with the rank of the alignment."""
        alignment = self._alignment(logits, quality)
        best_first = alignment.argsort(descending=True, stable=True)
        order = best_first[same_object[best_first].argsort(stable=True)]  # object by object, best first
        _, counts = same_object[order].unique_consecutive(return_counts=True)
        starts = (counts.cumsum(0) - counts).repeat_interleave(counts, output_size=len(order))
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - starts
        return torch.exp(-rank / self.rank_decay)

    def loss(self, logits: Tensor, targets: ClassTargets) -> tuple[Tensor, Tensor | None]:
        """See :meth:`~detrex.modeling.ClassScore.loss`."""
        positive = F.one_hot(targets.labels, logits.shape[-1] + 1)[..., :-1].bool()  # (B, Q, C)
        quality, weight = (v[..., None].expand_as(logits) for v in (targets.quality, targets.weight))
        wanted = self._alignment(logits.detach(), quality) * weight
        pair = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        background = logits.sigmoid() ** self.background_gamma * F.softplus(logits)
        return torch.where(positive, pair, background).sum(-1), None

    def _alignment(self, logits: Tensor, quality: Tensor) -> Tensor:
        share = self.probability_share
        return (logits.sigmoid() ** share * quality ** (1 - share)).clamp(min=LEAST_ALIGNMENT)


class MixedMatching(OneToMany):
    """Several queries for each object, and one in the last layer.

    Losses are divided by the number of objects, not of queries. At most half of the queries get an object,
    unless there are more objects than that.

    Args:
        copies: queries of each object.
        last_copies: queries of each object in the last layer.
    """

    queries_per_object = 1

    def __init__(self, copies: int = 2, last_copies: int = 1):
        super().__init__(copies)
        self.last = self if last_copies == copies else MixedMatching(last_copies, last_copies)

    def at_stage(self, stage: int, num_stages: int) -> Assignment:
        """The assignment for a decoder layer."""
        return self.last if stage == num_stages - 1 else self

    def pairs(self, values: Sequence[Tensor | None], counts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`~detrex.modeling.Assignment.pairs`."""
        found, copies = [], self.copies
        for cost, count in zip(values, counts, strict=True):
            # Published models keep the smaller number for all later images of the batch.
            copies = min(copies, max(1, int(0.5 * len(cost) / max(count, 1))))
            found.append(self._image(cost, copies))
        return found
