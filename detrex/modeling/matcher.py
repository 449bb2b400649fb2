"""Matching of predictions to ground truth: costs on the model's device, decisions on the CPU.

Shape letters: B images, Q queries of all predictions, N objects of an image, D mask embedding size, K points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert

from detrex.layers import linear, sample_bool_masks, sample_maps
from detrex.modeling.assignment import Matches, SupervisedPrediction, Truth
from detrex.modeling.class_score import ClassScore, SigmoidScore
from detrex.modeling.points import GridPoints, RandomPoints
from detrex.runtime.chunking import FLOAT_BYTES, items_in_cache, items_in_memory
from detrex.structures import BatchTargets, Prediction, pairwise_giou

# Floats in memory together while costs are computed: per query and point (logit, probability and softplus),
# per object and point (its truth, with indices), per query and object (mostly corners of boxes), and per
# query and class.
PER_QUERY_POINT, PER_OBJECT_POINT, PER_PAIR, PER_CLASS = 4, 20, 24, 8


class Matcher:
    """Finds the objects of all supervised predictions, by the cost of pairs and each prediction's assignment.

    The cost is that of DETR (arXiv 2005.12872), with the mask costs of Mask DINO.

    Args:
        class_score: gives the class cost.
        class_cost, box_cost, giou_cost, mask_cost, dice_cost: weights of the terms of the cost.
        points: chooses the points where masks are compared.
        box_stuff: whether stuff regions are compared by box, too. If not, the box costs of a query with stuff
            are its mean over things, so that they neither attract nor repel.
        memory_limit_mb: memory that the computation may take, besides its inputs, the costs of all queries
            and objects, and the per-pixel embedding and truth of an image at the points.
    """

    def __init__(
        self,
        class_score: ClassScore | None = None,
        class_cost: float = 2.0,
        box_cost: float = 5.0,
        giou_cost: float = 2.0,
        mask_cost: float = 0.0,
        dice_cost: float = 0.0,
        points: RandomPoints | GridPoints | None = None,
        box_stuff: bool = True,
        memory_limit_mb: int = 2048,
    ):
        self.class_score = class_score or SigmoidScore()
        self.class_cost, self.box_cost, self.giou_cost = class_cost, box_cost, giou_cost
        self.mask_cost, self.dice_cost = mask_cost, dice_cost
        self.points = points or RandomPoints()
        self.box_stuff, self.memory_limit_mb = box_stuff, memory_limit_mb

    @torch.no_grad()
    def __call__(
        self, predictions: Sequence[SupervisedPrediction], pixel_embed: Tensor | None, targets: BatchTargets
    ) -> Matches:
        """Matches every prediction separately.

        Args:
            predictions: the predictions to match; their numbers of queries may differ.
            pixel_embed: (B, D, H / 4, W / 4), or None for boxes only.
            targets: ground truth of the batch.

        Returns:
            The pairs, on the CPU.
        """
        values = _to_cpu(list(self._values(predictions, pixel_embed, targets)))  # the only transfer
        counts, found = targets.counts, []
        first_object = [sum(counts[:image]) for image in range(len(counts))]
        decided: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        for stage, (prediction, key) in enumerate(zip(predictions, map(_key, predictions), strict=True)):
            if key not in decided:
                decided[key] = prediction.assignment.pairs([row[stage] for row in values], counts)
            for image, (query, matched) in enumerate(decided[key]):
                fixed = torch.full_like(query, stage), torch.full_like(query, image)
                found.append(Matches(*fixed, query, matched + first_object[image]))
        return Matches.concatenate(found)

    def _values(
        self, predictions: Sequence[SupervisedPrediction], pixel_embed: Tensor | None, targets: BatchTargets
    ) -> Iterator[list[Tensor | None]]:
        """The values (Q, N) by which each of the predictions is assigned, for every image."""
        compared = [p for p in predictions if p.assignment.needs_cost]
        sizes = [p.size for p in compared]
        joined = Prediction.concatenate([p.prediction for p in compared]) if compared else None
        device = targets.labels.device
        # In class-agnostic predictions, all objects have the first class.
        has_class = torch.tensor([not p.assignment.class_agnostic for p in compared], dtype=torch.bool)
        has_class = has_class.repeat_interleave(torch.tensor(sizes, dtype=torch.int64))
        has_class = has_class.to(device, non_blocking=True)
        points = None
        if joined is not None and pixel_embed is not None and targets.masks is not None:
            points = self.points.shared(len(pixel_embed), device)
        with torch.autocast(device.type, enabled=False):
            for image in range(len(targets.counts)):
                truth = self._truth(targets, image, pixel_embed, points)
                costs: Iterator[Tensor] = iter(())
                if joined is not None:
                    costs = iter(self._cost(joined, image, has_class, truth).split(sizes))
                yield [
                    p.assignment.values(
                        next(costs) if p.assignment.needs_cost else None,
                        None if p.reference is None else p.reference[image],
                        truth,
                    )
                    for p in predictions
                ]

    def _truth(
        self, targets: BatchTargets, image: int, pixel_embed: Tensor | None, points: Tensor | None
    ) -> Truth:
        first = sum(targets.counts[:image])
        objects = slice(first, first + targets.counts[image])
        truth = Truth(targets.labels[objects], targets.boxes[objects], targets.is_thing[objects])
        if points is not None and pixel_embed is not None and targets.masks is not None:
            truth.pixel_embed = sample_maps(pixel_embed[image, None].float(), points[image, None])[
                0
            ]  # (D, K)
            index = torch.arange(objects.start, objects.stop, device=points.device)
            pieces = index.split(self._rows(PER_OBJECT_POINT * self.points.num_points))
            truth.inside = torch.cat(
                [sample_bool_masks(targets.masks, i, points[image].expand(len(i), -1, -1)) for i in pieces]
            )  # (N, K)
        return truth

    def _rows(self, floats: int) -> int:
        """How many rows of ``floats`` numbers each fit into memory."""
        return items_in_memory(FLOAT_BYTES * floats, self.memory_limit_mb)

    def _cost(self, joined: Prediction, image: int, has_class: Tensor, truth: Truth) -> Tensor:
        """The cost of each pair in one image, (Q, N)."""
        floats = PER_PAIR * len(truth.labels) + PER_CLASS * joined.logits.shape[-1]
        step = self._rows(floats)
        if truth.pixel_embed is not None:
            count = self.points.num_points
            most = items_in_cache(FLOAT_BYTES * count, joined.logits.device)
            step = min(most, self._rows(floats + PER_QUERY_POINT * count))
        costs = []
        for first in range(0, len(has_class), step):
            rows = slice(first, first + step)
            labels = has_class[rows, None] * truth.labels  # (rows, N)
            logits = joined.logits[image, rows].float()
            cost = self.class_cost * self.class_score.cost(logits, labels)
            cost = cost + self._box_costs(joined.boxes[image, rows].float(), truth)
            if truth.pixel_embed is not None and truth.inside is not None and joined.mask_embed is not None:
                masks = linear(joined.mask_embed[image, rows].float(), truth.pixel_embed.t())  # (rows, K)
                cost = cost + self._mask_costs(masks, truth.inside)
            costs.append(cost)
        return torch.cat(costs)

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


def _key(prediction: SupervisedPrediction) -> tuple[int, ...]:
    """A key that is equal for predictions with the same assignment, if that does not depend on predictions.

    Such an assignment decides once for all layers, even if it draws at random.
    """
    if prediction.assignment.needs_cost:
        return (id(prediction),)
    return id(prediction.assignment), id(prediction.reference)


def _to_cpu(images: list[list[Tensor | None]]) -> list[list[Tensor | None]]:
    """The values on the CPU, moved by one transfer."""
    present = [value for row in images for value in row if value is not None]
    if not present:
        return images
    flat = torch.cat([value.float().flatten() for value in present]).cpu()
    moved = iter(flat.split([value.numel() for value in present]))
    return [[None if v is None else next(moved).view(v.shape) for v in row] for row in images]
