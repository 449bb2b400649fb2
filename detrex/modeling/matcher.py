"""Hungarian matching of predictions to ground truth (DETR, arXiv 2005.12872), with mask costs.

Shape letters: B images, Q queries, N objects of an image, C classes, D mask embedding size, K points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert

from detrex.layers import sample_bool_masks, sample_maps
from detrex.modeling.points import GridPoints, RandomPoints
from detrex.structures import BatchTargets, Prediction, pairwise_giou


@dataclass
class Matches:
    """Pairs of queries and objects, over all parts and images.

    Attributes:
        part: (M,) int64, which supervised prediction.
        image: (M,) int64, index in the batch.
        query: (M,) int64, query index within the part.
        object: (M,) int64, index into the batch's concatenated objects.
    """

    part: Tensor
    image: Tensor
    query: Tensor
    object: Tensor

    @classmethod
    def concatenate(cls, *matches: Matches) -> Matches:
        return cls(
            *(torch.cat(columns) for columns in zip(*(vars(m).values() for m in matches), strict=True))
        )

    def ordered_by_image(self, batch: int) -> tuple[Matches, list[int]]:
        """The same pairs image by image, and how many each of ``batch`` images has."""
        order = self.image.argsort(stable=True)
        counts = torch.bincount(self.image, minlength=batch).tolist()
        return Matches(*(column[order] for column in vars(self).values())), counts

    def to(self, device: torch.device) -> Matches:
        return Matches(*(t.to(device, non_blocking=True) for t in vars(self).values()))


class HungarianMatcher:
    """Finds for every object the query that costs least, all objects of an image together.

    Args:
        class_cost, box_cost, giou_cost, mask_cost, dice_cost: weights of the parts of the cost.
        alpha, gamma: of the focal-style class cost.
        points: where masks are compared.
        box_stuff: whether stuff regions are compared by box too. If not, their box costs are an
            object's mean over things, so that they neither attract nor repel.
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
        points: RandomPoints | GridPoints | None = None,
        box_stuff: bool = True,
    ):
        self.class_cost, self.box_cost, self.giou_cost = class_cost, box_cost, giou_cost
        self.mask_cost, self.dice_cost = mask_cost, dice_cost
        self.alpha, self.gamma = alpha, gamma
        self.points = points or RandomPoints()
        self.box_stuff = box_stuff

    @torch.no_grad()
    def __call__(self, parts: list[Prediction], pixel_embed: Tensor | None, targets: BatchTargets) -> Matches:
        """Matches every part by itself; all costs leave the device in one transfer.

        Args:
            parts: predictions with Q queries each (Q may differ).
            pixel_embed: (B, D, H / 4, W / 4), or None for boxes only.
            targets: ground truth of the batch.

        Returns:
            Matches on the CPU. With more objects than queries the best-fitting objects are matched.
        """
        points = self._sample_points(pixel_embed, targets)
        sizes = [p.logits.shape[1] for p in parts]
        joined = Prediction.concatenate(parts)
        with torch.autocast(joined.logits.device.type, enabled=False):
            costs = [
                self._cost(joined, image, targets, points).T.contiguous()
                for image in range(len(targets.counts))
            ]
        costs = torch.cat([c.flatten() for c in costs]).cpu()  # the one transfer
        return self._assign(costs, sizes, targets.counts)

    def _assign(self, costs: Tensor, sizes: list[int], counts: list[int]) -> Matches:
        total, offset, rows = sum(sizes), 0, []
        for image, (count, cost) in enumerate(
            zip(counts, costs.split([total * n for n in counts]), strict=True)
        ):
            for part, block in enumerate(cost.view(count, total).split(sizes, 1)):
                objects, queries = linear_sum_assignment(_finite(block).numpy())
                pair = torch.from_numpy(objects) + offset, torch.from_numpy(queries)
                index = torch.full_like(pair[0], part), torch.full_like(pair[0], image)
                rows.append(torch.stack([*index, pair[1], pair[0]]))
            offset += count
        return Matches(*torch.cat(rows, 1)) if rows else Matches(*torch.zeros(4, 0, dtype=torch.int64))

    def _sample_points(self, pixel_embed: Tensor | None, targets: BatchTargets) -> tuple | None:
        """Per-pixel embeddings (B, D, K) and true masks (objects, K) at points shared within an image."""
        if pixel_embed is None or targets.masks is None:
            return None
        points = self.points.shared(len(pixel_embed), pixel_embed.device)
        every = torch.arange(len(targets), device=pixel_embed.device)
        truth = sample_bool_masks(targets.masks, every, points[targets.image])
        return sample_maps(pixel_embed.float(), points), truth

    def _cost(self, joined: Prediction, image: int, targets: BatchTargets, points: tuple | None) -> Tensor:
        """(Q, N) cost of one image."""
        start = sum(targets.counts[:image])
        chosen = slice(start, start + targets.counts[image])
        cost = self.class_cost * self._class_cost(joined.logits[image].float(), targets.labels[chosen])
        cost = cost + self._box_costs(joined.boxes[image].float(), targets, chosen)
        if points is None:
            return cost
        embedded, truth = points
        logits = joined.mask_embed[image].float() @ embedded[image]  # (Q, K)
        return cost + self._mask_costs(logits, truth[chosen])

    def _class_cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        probability = logits.sigmoid()
        positive = self.alpha * (1 - probability) ** self.gamma * -(probability + 1e-8).log()
        negative = (1 - self.alpha) * probability**self.gamma * -(1 - probability + 1e-8).log()
        return (positive - negative)[:, labels]

    def _box_costs(self, boxes: Tensor, targets: BatchTargets, chosen: slice) -> Tensor:
        truth = targets.boxes[chosen]
        giou = pairwise_giou(box_convert(boxes, "cxcywh", "xyxy"), box_convert(truth, "cxcywh", "xyxy"))
        cost = self.box_cost * torch.cdist(boxes, truth, p=1) - self.giou_cost * giou
        if self.box_stuff:
            return cost
        thing = targets.is_thing[chosen]
        mean = (cost * thing).sum(1, keepdim=True) / thing.sum().clamp(min=1)
        return torch.where(thing, cost, mean)

    def _mask_costs(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Pointwise costs of (Q, K) logits against (N, K) masks as matrix products: (Q, N)."""
        # BCE of logit x is softplus(x) where the truth is 0 and softplus(x) - x where it is 1.
        cross_entropy = (F.softplus(logits).sum(1, keepdim=True) - logits @ truth.T) / logits.shape[1]
        probability = logits.sigmoid()
        overlap = 2 * probability @ truth.T
        total = probability.sum(1, keepdim=True) + truth.sum(1)
        return self.mask_cost * cross_entropy + self.dice_cost * (1 - (overlap + 1) / (total + 1))


def _finite(cost: Tensor) -> Tensor:
    """A diverged run must reach the trainer's check of its losses, not fail inside the assignment."""
    return cost.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6)
