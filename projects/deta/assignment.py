"""DETA (arXiv 2212.06137): objects are assigned by overlap, in both stages, and duplicates are suppressed.

Shape letters: B images, S tokens, Q queries, N objects of an image, C classes, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from detrex.layers import at_most, not_suppressed, take_rows
from detrex.modeling import Assignment, EncodedProposals, InstanceInference, Truth
from detrex.modeling.queries.proposals import ANCHOR_SIZES
from detrex.structures import Prediction, Pyramid, pairwise_iou


class OverlapAssignment(Assignment):
    """Objects go to the queries whose initial boxes overlap them most.

    Args:
        positive_iou: a query is positive if the IoU of its box and an object is at least this, or higher
            than that of all other boxes.
        most_positive: largest number of positive queries of an image, drawn at random if there are more; a
            number below 1 is a share of the queries.
        most_per_object: largest number of queries that answer for an object.
        class_agnostic: see :class:`~detrex.modeling.Assignment`.
    """

    needs_cost = False

    def __init__(
        self,
        positive_iou: float,
        most_positive: float,
        most_per_object: int = 4,
        class_agnostic: bool = False,
    ):
        self.positive_iou, self.most_positive = positive_iou, most_positive
        self.most_per_object, self.class_agnostic = most_per_object, class_agnostic

    def values(self, cost: Tensor | None, reference: Tensor | None, truth: Truth) -> Tensor:  # noqa: ARG002
        """IoU (Q, N) of the queries' initial boxes and the objects."""
        return pairwise_iou(*(box_convert(b, "cxcywh", "xyxy") for b in (reference, truth.boxes)))

    def pairs(self, values: Sequence[Tensor | None], counts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`~detrex.modeling.Assignment.pairs`. Objects that overlap little may get none."""
        return [self._image(overlap) for overlap, _ in zip(values, counts, strict=True)]

    def _image(self, overlap: Tensor) -> tuple[Tensor, Tensor]:
        queries, objects = overlap.shape
        if objects == 0:
            return torch.zeros(2, 0, dtype=torch.int64).unbind()
        best, owner = overlap.max(1)  # (queries,)
        positive = (best >= self.positive_iou) | (overlap == overlap.amax(0)).any(1)
        index = positive.nonzero().squeeze(1)
        most = int(self.most_positive * (queries if self.most_positive < 1 else 1))
        if len(index) > most:
            index = index[torch.randperm(len(index))[:most]]
        wanted = torch.bincount(owner[index], minlength=objects).clamp(max=self.most_per_object).tolist()
        # An object's highest overlaps count even if other objects own these queries.
        query = torch.cat([overlap[:, j].topk(n).indices for j, n in enumerate(wanted)])
        return query, torch.arange(objects).repeat_interleave(torch.tensor(wanted))


class SuppressedProposals(EncodedProposals):
    """Proposals of every level that do not overlap much; contents come from tokens, too.

    Args:
        num_queries, hidden_dim, anchor_sizes, assignment, proposal_assignment: see
            :class:`~detrex.modeling.EncodedProposals`.
        nms_iou: if two proposals of a level overlap more, the better one is kept; None: take the best of all.
        candidates_per_level: number of best proposals of each level that take part.
    """

    def __init__(
        self,
        num_queries: int = 900,
        hidden_dim: int = 256,
        anchor_sizes: Sequence[float] = (*ANCHOR_SIZES, 0.8),
        assignment: Assignment | None = None,
        proposal_assignment: Assignment | None = None,
        nms_iou: float | None = 0.9,
        candidates_per_level: int = 1000,
    ):
        super().__init__(num_queries, hidden_dim, anchor_sizes, assignment, proposal_assignment)
        self.nms_iou, self.candidates_per_level = nms_iou, candidates_per_level
        self.token_projection = nn.Linear(hidden_dim, hidden_dim)
        self.token_norm = nn.LayerNorm(hidden_dim)

    def select(self, proposals: Prediction, memory: Pyramid) -> Tensor:
        """Tokens (B, Q) that become queries, in the order of falling logits of class 0."""
        if self.nms_iou is None:
            return super().select(proposals, memory)
        logits = proposals.logits.detach()[..., 0].float()  # (B, S)
        boxes = box_convert(proposals.boxes.detach(), "cxcywh", "xyxy").clamp(0, 1)
        number = at_most(self.num_queries, logits.shape[1])
        # Levels with fewer tokens are filled up with others' tokens, which suppression removes as duplicates.
        candidates = at_most(self.candidates_per_level, logits.shape[1])
        levels = torch.cat(
            [torch.full((size,), i, device=logits.device) for i, size in enumerate(memory.sizes)]
        )
        count = len(memory.sizes)
        picked = torch.cat(
            [(logits.sigmoid() * (levels == i)).topk(candidates).indices for i in range(count)], 1
        )  # (B, N)
        score, level = logits.gather(1, picked), levels[picked]  # (B, N)
        kept = not_suppressed(take_rows(boxes, picked), score, level, self.nms_iou)  # (B, N) bool
        # Within an image, the best of each level come first, then the others, each in the order of scores.
        score = score.masked_fill(~kept, -torch.inf)
        order = score.sort(dim=1, descending=True, stable=True).indices
        kept, level = kept.gather(1, order), level.gather(1, order)
        one_hot = nn.functional.one_hot(level, count) * kept[..., None]  # (B, N, levels)
        place = (one_hot.cumsum(1) * one_hot).sum(2)  # from 1, within the level; 0 for suppressed ones
        later = torch.where(kept, (place > number // count).long(), 2)
        # Sorted by numbers that all differ, since not every runtime keeps the order of equal ones.
        size = later.shape[1]
        first = (later * size + torch.arange(size, device=later.device)).sort(1).indices[:, :number]
        first = first.sort(1).values  # (B, Q)
        chosen = picked.gather(1, order).gather(1, first)
        enough = kept.sum(1, keepdim=True) >= number
        return torch.where(enough, chosen, logits.topk(number).indices)

    def start(self, tokens: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`~detrex.modeling.EncodedProposals.start`, with the tokens added to the contents."""
        content, position = super().start(tokens, boxes)
        return content + self.token_norm(self.token_projection(tokens)), position


@dataclass
class SuppressedInstances(InstanceInference):
    """Instances of which no two of a class overlap much.

    Attributes:
        nms_iou: if two boxes of a class overlap more, the better one is kept.
        candidates: number of best pairs of query and class that take part.
    """

    nms_iou: float = 0.7
    candidates: int = 10000

    def best(self, scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`~detrex.modeling.InstanceInference.best`."""
        num_classes, scores = scores.shape[2], scores.flatten(1)
        top, index = scores.topk(at_most(self.candidates, scores.shape[1]))  # (B, N)
        query, label = index // num_classes, index % num_classes
        places = box_convert(take_rows(boxes, query), "cxcywh", "xyxy")  # (B, N, 4)
        top = top.masked_fill(~not_suppressed(places, top, label, self.nms_iou), -1)
        top, order = top.topk(at_most(self.max_detections, top.shape[1]))
        return top, query.gather(1, order), label.gather(1, order)
