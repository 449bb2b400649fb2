"""Hungarian matching of predictions to ground truth (DETR, arXiv 2005.12872), with mask costs.

Shape letters: B images, Q queries of all parts, N objects of an image, D mask embedding size, K points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert

from detrex.layers import linear, sample_bool_masks, sample_maps
from detrex.modeling.points import GridPoints, RandomPoints, points_at_once
from detrex.modeling.supervision import Matches, Part
from detrex.structures import BatchTargets, Prediction, pairwise_giou

FLOAT_BYTES = 4
# Floats that are in memory together while costs are computed: per query and point (logit, probability and
# softplus), per object and point (its truth, with indices), per query and object (mostly corners of boxes),
# and per query and class.
PER_QUERY_POINT, PER_OBJECT_POINT, PER_PAIR, PER_CLASS = 4, 20, 24, 8


@dataclass
class Truth:
    """What the queries of one image are compared with.

    Attributes:
        labels: (N,) int64.
        boxes: (N, 4) normalised cxcywh.
        is_thing: (N,) bool.
        pixels: (D, K) per-pixel embedding at the points, or None where masks are not compared.
        inside: (N, K) true masks at the points, or None.
    """

    labels: Tensor
    boxes: Tensor
    is_thing: Tensor
    pixels: Tensor | None = None
    inside: Tensor | None = None


class HungarianMatcher:
    """Finds for every object the query that costs least, all objects of an image together.

    Args:
        class_cost, box_cost, giou_cost, mask_cost, dice_cost: weights of the parts of the cost.
        alpha, gamma: of the focal-style class cost.
        softmax_classes: whether the class cost is the negative softmax probability instead (DETR). Mask
            DINO's is focal-style even where its loss is a softmax's.
        points: where masks are compared.
        box_stuff: whether stuff regions are compared by box too. If not, their box costs are an
            object's mean over things, so that they neither attract nor repel.
        memory_limit_mb: what the computation may take, besides its inputs, the costs of all queries and
            objects themselves, and the per-pixel embedding and truth of an image at the points.
    """

    def __init__(
        self,
        class_cost: float = 4.0,
        box_cost: float = 5.0,
        giou_cost: float = 2.0,
        mask_cost: float = 5.0,
        dice_cost: float = 5.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        softmax_classes: bool = False,
        points: RandomPoints | GridPoints | None = None,
        box_stuff: bool = True,
        memory_limit_mb: int = 2048,
    ):
        self.class_cost, self.box_cost, self.giou_cost = class_cost, box_cost, giou_cost
        self.mask_cost, self.dice_cost = mask_cost, dice_cost
        self.alpha, self.gamma, self.softmax_classes = alpha, gamma, softmax_classes
        self.points = points or RandomPoints()
        self.box_stuff, self.memory_limit_mb = box_stuff, memory_limit_mb

    @torch.no_grad()
    def __call__(self, parts: list[Part], pixel_embed: Tensor | None, targets: BatchTargets) -> Matches:
        """Matches every part, and every group of its queries, by itself.

        Args:
            parts: what to match; numbers of queries may differ.
            pixel_embed: (B, D, H / 4, W / 4), or None for boxes only.
            targets: ground truth of the batch.

        Returns:
            Matches on the CPU. With more objects than queries the best-fitting objects are matched.
        """
        joined = Prediction.concatenate([p.prediction for p in parts])
        device = joined.logits.device
        # Where objects are only told from background, all of them have the first class.
        has_class = torch.tensor([not p.binary for p in parts])
        has_class = has_class.repeat_interleave(torch.tensor([p.size for p in parts]))
        has_class = has_class.to(device, non_blocking=True)
        points = None
        if pixel_embed is not None and targets.masks is not None:
            points = self.points.shared(len(pixel_embed), device)
        with torch.autocast(device.type, enabled=False):
            costs = [
                self._cost(joined, image, has_class, self._truth(targets, image, pixel_embed, points))
                for image in range(len(targets.counts))
            ]
        costs = torch.cat([c.flatten() for c in costs]).cpu()  # the one transfer
        return _assign(costs, parts, targets.counts)

    def _truth(
        self, targets: BatchTargets, image: int, pixel_embed: Tensor | None, points: Tensor | None
    ) -> Truth:
        first = sum(targets.counts[:image])
        own = slice(first, first + targets.counts[image])
        truth = Truth(targets.labels[own], targets.boxes[own], targets.is_thing[own])
        if points is not None:
            truth.pixels = sample_maps(pixel_embed[image, None].float(), points[image, None])[0]
            index = torch.arange(own.start, own.stop, device=points.device)
            pieces = index.split(self._rows(PER_OBJECT_POINT * self.points.num_points))
            truth.inside = torch.cat(
                [sample_bool_masks(targets.masks, i, points[image].expand(len(i), -1, -1)) for i in pieces]
            )
        return truth

    def _rows(self, floats: int) -> int:
        """How many rows that take so many floats each fit the memory."""
        return max(1, self.memory_limit_mb * 2**20 // (FLOAT_BYTES * floats))

    def _cost(self, joined: Prediction, image: int, has_class: Tensor, truth: Truth) -> Tensor:
        """(Q, N) cost of one image."""
        floats = PER_PAIR * len(truth.labels) + PER_CLASS * joined.logits.shape[-1]
        step = self._rows(floats)
        if truth.pixels is not None:
            count = self.points.num_points
            most = max(1, points_at_once(joined.logits) // count)
            step = min(most, self._rows(floats + PER_QUERY_POINT * count))
        costs = []
        for first in range(0, len(has_class), step):
            rows = slice(first, first + step)
            cost = self._class_cost(joined.logits[image, rows].float(), has_class[rows], truth.labels)
            cost = cost + self._box_costs(joined.boxes[image, rows].float(), truth)
            if truth.pixels is not None:
                logits = linear(joined.mask_embed[image, rows].float(), truth.pixels.t())  # (rows, K)
                cost = cost + self._mask_costs(logits, truth.inside)
            costs.append(cost)
        return torch.cat(costs)

    def _class_cost(self, logits: Tensor, has_class: Tensor, labels: Tensor) -> Tensor:
        if self.softmax_classes:
            cost = -logits.softmax(-1)
        else:
            probability = logits.sigmoid()
            positive = self.alpha * (1 - probability) ** self.gamma * -(probability + 1e-8).log()
            negative = (1 - self.alpha) * probability**self.gamma * -(1 - probability + 1e-8).log()
            cost = positive - negative
        return self.class_cost * cost.gather(1, has_class[:, None] * labels)

    def _box_costs(self, boxes: Tensor, truth: Truth) -> Tensor:
        corners = (box_convert(b, "cxcywh", "xyxy") for b in (boxes, truth.boxes))
        cost = self.box_cost * torch.cdist(boxes, truth.boxes, p=1) - self.giou_cost * pairwise_giou(*corners)
        if self.box_stuff:
            return cost
        mean = (cost * truth.is_thing).sum(1, keepdim=True) / truth.is_thing.sum().clamp(min=1)
        return torch.where(truth.is_thing, cost, mean)

    def _mask_costs(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Pointwise costs of (Q, K) logits against (N, K) masks as matrix products: (Q, N)."""
        # BCE of logit x is softplus(x) where the truth is 0 and softplus(x) - x where it is 1.
        cross_entropy = (F.softplus(logits).sum(1, keepdim=True) - linear(logits, truth)) / logits.shape[1]
        probability = logits.sigmoid()
        overlap = 2 * linear(probability, truth)
        total = probability.sum(1, keepdim=True) + truth.sum(1)
        return self.mask_cost * cross_entropy + self.dice_cost * (1 - (overlap + 1) / (total + 1))


def _assign(costs: Tensor, parts: list[Part], counts: list[int]) -> Matches:
    """Matches by the concatenated (Q, N) costs of the images, which have ``counts`` objects."""
    sizes, first, found = [p.size for p in parts], 0, []
    of_images = costs.split([sum(sizes) * n for n in counts])
    for image, (count, cost) in enumerate(zip(counts, of_images, strict=True)):
        blocks = cost.view(sum(sizes), count).split(sizes)
        for number, (part, block) in enumerate(zip(parts, blocks, strict=True)):
            query, own = _assign_part(block, part)
            fixed = torch.full_like(query, number), torch.full_like(query, image)
            found.append(Matches(*fixed, query, own + first))
        first += count
    return Matches.concatenate(*found)


def _assign_part(cost: Tensor, part: Part) -> tuple[Tensor, Tensor]:
    """Queries, and objects of the image, that go together by the part's (queries, N) costs."""
    size, count = part.size // part.groups, cost.shape[1]
    rows = []
    for group, own in enumerate(_finite(cost).split(size)):
        objects, queries = linear_sum_assignment(own.T.repeat(part.copies, 1).numpy())
        rows.append(np.stack([queries + group * size, objects % max(count, 1)]))
    query, matched = torch.from_numpy(np.concatenate(rows, 1))
    return query, matched


def _finite(cost: Tensor) -> Tensor:
    """A diverged run must reach the trainer's check of its losses, not fail inside the assignment."""
    return cost.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6)
