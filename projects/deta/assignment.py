"""DETA (arXiv 2212.06137): objects are assigned by overlap, in both stages, and duplicates are suppressed.

Shape letters: B images, S tokens, Q queries, N objects of an image, C classes, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_convert

from detrex.modeling import Assignment, EncodedProposals, InstanceInference, Truth
from detrex.modeling.queries.proposals import ANCHOR_SIZES
from detrex.structures import Prediction, Pyramid, pairwise_iou


class OverlapAssignment(Assignment):
    """Objects go to the queries that started from boxes which overlap them most.

    Args:
        positive_iou: a query is positive if its box overlaps an object at least so much, or more than all
            other boxes do.
        most_positive: at most so many positive queries of an image count, drawn at random; a number below 1
            is a share of the queries.
        most_per_object: at most so many queries answer for an object.
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
        """IoU (Q, N) of the boxes that queries started from and the objects."""
        return pairwise_iou(*(box_convert(b, "cxcywh", "xyxy") for b in (reference, truth.boxes)))

    def pairs(self, values: Sequence[Tensor | None], counts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """As of :meth:`~detrex.modeling.Assignment.pairs`. Objects that overlap little may get none."""
        return [self._image(overlap) for overlap, _ in zip(values, counts, strict=True)]

    def _image(self, overlap: Tensor) -> tuple[Tensor, Tensor]:
        queries, objects = overlap.shape
        if objects == 0:
            return torch.zeros(2, 0, dtype=torch.int64).unbind()
        best, owner = overlap.max(1)
        positive = (best >= self.positive_iou) | (overlap == overlap.amax(0)).any(1)
        index = positive.nonzero().squeeze(1)
        most = int(self.most_positive * (queries if self.most_positive < 1 else 1))
        if len(index) > most:
            index = index[torch.randperm(len(index))[:most]]
        wanted = torch.bincount(owner[index], minlength=objects).clamp(max=self.most_per_object).tolist()
        # The highest overlaps of an object count, whether or not it owns these queries.
        query = torch.cat([overlap[:, j].topk(n).indices for j, n in enumerate(wanted)])
        return query, torch.arange(objects).repeat_interleave(torch.tensor(wanted))


class SuppressedProposals(EncodedProposals):
    """Proposals of every level that do not overlap much; contents come from tokens, too.

    Args:
        num_queries, hidden_dim, anchor_sizes, assignment, proposal_assignment: see
            :class:`~detrex.modeling.EncodedProposals`.
        nms_iou: of two proposals of a level that overlap more, the better one is kept; None: the best of all.
        candidates_per_level: the best so many of a level take part.
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
        levels = torch.arange(len(memory.sizes)).repeat_interleave(torch.tensor(memory.sizes))
        levels = levels.to(logits.device)
        return torch.stack([self._image(*row, levels) for row in zip(logits, boxes, strict=True)])

    def _image(self, logits: Tensor, boxes: Tensor, levels: Tensor) -> Tensor:
        number, candidates = min(self.num_queries, len(logits)), min(self.candidates_per_level, len(logits))
        count = len(self.anchor_sizes)
        # Levels with fewer tokens are filled up with others, which suppression removes as duplicates.
        picked = torch.cat(
            [(logits.sigmoid() * (levels == i)).topk(candidates).indices for i in range(count)]
        )
        kept = picked[batched_nms(boxes[picked], logits[picked], levels[picked], self.nms_iou)]
        if len(kept) < number:
            return logits.topk(number).indices
        level = nn.functional.one_hot(levels[kept], count)
        place = (level.cumsum(0) * level).sum(1)  # from 1, within the level
        first_choice = place <= number // count
        best = torch.cat([first_choice.nonzero(), (~first_choice).nonzero()]).squeeze(1)[:number]
        return kept[best.sort().values]

    def start(self, tokens: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """As of :meth:`~detrex.modeling.EncodedProposals.start`, with the tokens added to the contents."""
        content, position = super().start(tokens, boxes)
        return content + self.token_norm(self.token_projection(tokens)), position


@dataclass
class SuppressedInstances(InstanceInference):
    """Instances of which no two of a class overlap much.

    Attributes:
        nms_iou: of two boxes of a class that overlap more, the better one is kept.
        candidates: the best so many pairs of query and class take part.
    """

    nms_iou: float = 0.7
    candidates: int = 10000

    def best(self, scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As of :meth:`~detrex.modeling.InstanceInference.best`."""
        top, index = scores.flatten().topk(min(self.candidates, scores.numel()))
        query, label = index // scores.shape[1], index % scores.shape[1]
        kept = batched_nms(box_convert(boxes[query], "cxcywh", "xyxy"), top, label, self.nms_iou)
        kept = kept[: self.max_detections]
        return top[kept], query[kept], label[kept]
