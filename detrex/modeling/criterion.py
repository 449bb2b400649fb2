"""The set criterion: the losses of all supervised predictions.

Shape letters: B images, P supervised predictions, Q queries of all of them together, M matched pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from detrex.modeling.assignment import Matches, SupervisedPrediction
from detrex.modeling.class_score import ClassScore, ClassTargets, SigmoidScore
from detrex.modeling.mask_losses import MaskLosses
from detrex.modeling.matcher import Matcher
from detrex.modeling.points import GridPoints, RandomPoints
from detrex.runtime.distributed import mean_over_processes
from detrex.structures import BatchTargets, Prediction, aligned_giou, aligned_iou


class SetCriterion(nn.Module):
    """Weighted losses of every supervised prediction.

    Args:
        matcher: decides which queries answer for which objects.
        class_score: gives the class loss.
        class_weight, box_weight, giou_weight, mask_weight, dice_weight: of the class loss, L1, GIoU, mask
            cross-entropy and dice. A weight of 0 leaves the loss out.
        points: chooses the points where masks are compared.
        box_stuff: whether stuff regions take part in box losses, as in the published panoptic models. If not,
            box losses are still divided by the number of all objects.
        memory_limit_mb: memory that the mask losses may take, besides their inputs and the gradients of
            these; losses that need more are computed in pieces, and again in the backward pass.
    """

    def __init__(
        self,
        matcher: Matcher | None = None,
        class_score: ClassScore | None = None,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        mask_weight: float = 0.0,
        dice_weight: float = 0.0,
        points: RandomPoints | GridPoints | None = None,
        box_stuff: bool = True,
        memory_limit_mb: int = 2048,
    ):
        super().__init__()
        self.matcher, self.class_score = matcher or Matcher(), class_score or SigmoidScore()
        self.class_weight, self.box_weight, self.giou_weight = class_weight, box_weight, giou_weight
        self.mask_weight, self.dice_weight = mask_weight, dice_weight
        self.points = points or RandomPoints()
        self.box_stuff, self.memory_limit_mb = box_stuff, memory_limit_mb

    def forward(
        self,
        predictions: Sequence[SupervisedPrediction],
        pixel_embed: Tensor | None,
        targets: BatchTargets,
    ) -> dict[str, Tensor]:
        """Losses by published name (``loss_ce``, ``loss_mask_3``, ``loss_dice_interm``, ``loss_bbox_dn_0``).

        Every entry is weighted and counts once in the total. Losses are in float32 even under autocast.

        Args:
            predictions: all supervised predictions.
            pixel_embed: (B, D, H / 4, W / 4), which turns mask embeddings into masks; None without masks.
            targets: ground truth of the batch.
        """
        device = targets.labels.device
        with torch.autocast(device.type, enabled=False):
            matches = self.matcher(predictions, pixel_embed, targets)
            joined = JoinedPredictions.join(predictions, matches, len(targets.counts))
            objects = mean_over_processes(torch.full((), float(len(targets)), device=device)).clamp(min=1)
            normalizer = objects * joined.per_prediction(
                [p.assignment.queries_per_object for p in predictions]
            )
            class_loss, pair_weight = self._class_loss(joined, targets, normalizer)
            pair_losses = {
                **self._box_losses(joined, targets),
                **self._mask_losses(joined, pixel_embed, targets),
            }
        losses = {"loss_ce": class_loss} if self.class_weight else {}  # (P,) each
        for name, (weight, per_pair) in pair_losses.items():
            losses[name] = weight * joined.sum_by_prediction(per_pair * pair_weight) / normalizer
        total: dict[str, Tensor] = {}
        for name, per_prediction in losses.items():
            for prediction, value in zip(predictions, per_prediction, strict=True):
                key = name + prediction.loss_suffix
                total[key] = total[key] + value if key in total else value
        return total

    def _class_loss(
        self, joined: JoinedPredictions, targets: BatchTargets, normalizer: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        """The weighted class loss of every prediction (P,), and the weight of pairs in other losses (M,)."""
        logits, place = joined.prediction.logits, (joined.matches.image, joined.query)
        has_class = joined.per_prediction([not p.assignment.class_agnostic for p in joined.parts]).long()
        label = targets.labels[joined.matches.object] * has_class[joined.matches.stage]  # (M,)
        # Softmax has a logit for "no object", the last one; sigmoid has none.
        background = logits.shape[-1] - (self.class_score.num_logits(1) - 1)
        labels = torch.full(logits.shape[:2], background, device=logits.device)  # (B, Q)
        labels[place] = label
        wanted = ClassTargets(labels)
        pair_weight: Tensor | float = 1.0
        if self.class_score.uses_quality:
            quality = joined.pair_iou(targets)  # (M,)
            with torch.no_grad():
                of_label = logits[place].gather(1, label[:, None]).squeeze(1)  # (M,)
                pair_weight = self.class_score.pair_weights(
                    of_label, quality, joined.same_object(len(targets))
                )
            wanted.quality, wanted.weight = (torch.zeros_like(logits[..., 0]) for _ in range(2))
            wanted.quality[place], wanted.weight[place] = quality, pair_weight
        loss, weight = self.class_score.loss(logits, wanted)  # (B, Q)
        loss = joined.with_class_loss_factors(loss, labels != background, logits.shape[-1])
        total = torch.stack([part.sum() for part in loss.split(joined.sizes, 1)])  # (P,)
        if weight is not None:
            normalizer = torch.stack([part.sum() for part in weight.split(joined.sizes, 1)])
        return self.class_weight * total / normalizer, pair_weight

    def _box_losses(
        self, joined: JoinedPredictions, targets: BatchTargets
    ) -> dict[str, tuple[float, Tensor]]:
        """Weight and values (M,) of each loss."""
        predicted, truth = joined.pair_boxes(targets)  # (M, 4) each
        counted = torch.ones_like(predicted[:, 0])
        if not self.box_stuff:
            counted = targets.is_thing[joined.matches.object].float()
        losses = {}
        if self.box_weight:
            distance = F.l1_loss(predicted, truth, reduction="none").sum(-1)  # (M,)
            losses["loss_bbox"] = self.box_weight, distance * counted
        if self.giou_weight:
            giou = aligned_giou(*(box_convert(b, "cxcywh", "xyxy") for b in (predicted, truth)))  # (M,)
            losses["loss_giou"] = self.giou_weight, (1 - giou) * counted
        return losses

    def _mask_losses(
        self, joined: JoinedPredictions, pixel_embed: Tensor | None, targets: BatchTargets
    ) -> dict[str, tuple[float, Tensor]]:
        """Weight and values (M,) of each loss."""
        embed = joined.prediction.mask_embed  # (B, Q, D)
        if embed is None or pixel_embed is None or targets.masks is None:
            return {}
        if not (self.mask_weight or self.dice_weight):
            return {}
        cross_entropy, dice = MaskLosses(self.points, self.memory_limit_mb)(
            embed[joined.matches.image, joined.query],
            pixel_embed.float(),
            joined.pairs_per_image,
            targets.masks,
            joined.matches.object,
        )
        losses = {
            "loss_mask": (self.mask_weight, cross_entropy),
            "loss_dice": (self.dice_weight, dice),
        }
        return {name: (weight, values) for name, (weight, values) in losses.items() if weight}


@dataclass
class JoinedPredictions:
    """All supervised predictions side by side, so that every loss is one pass over all of them.

    Attributes:
        parts: the supervised predictions.
        prediction: their queries one after another, in float32: (B, Q, ...).
        matches: the pairs of queries and objects, ordered by image.
        query: (M,) index of every matched query among the joined ones.
        pairs_per_image: number of pairs of every image, Python ints.
    """

    parts: Sequence[SupervisedPrediction]
    prediction: Prediction
    matches: Matches
    query: Tensor
    pairs_per_image: list[int]

    @classmethod
    def join(cls, parts: Sequence[SupervisedPrediction], matches: Matches, batch: int) -> JoinedPredictions:
        """Joins the predictions of a ``batch`` of images; ``matches`` are on the CPU."""
        joined = Prediction.concatenate([p.prediction for p in parts])
        embed = None if joined.mask_embed is None else joined.mask_embed.float()
        joined = Prediction(joined.logits.float(), joined.boxes.float(), embed)
        matches = matches.ordered_by_object()
        starts = torch.tensor([0, *(p.size for p in parts[:-1])]).cumsum(0)  # (P,)
        query = starts[matches.stage] + matches.query  # (M,)
        device = joined.logits.device
        pairs = torch.bincount(matches.image, minlength=batch).tolist()
        return cls(parts, joined, matches.to(device), query.to(device, non_blocking=True), pairs)

    @property
    def sizes(self) -> list[int]:
        """Queries of every prediction."""
        return [p.size for p in self.parts]

    def per_prediction(self, values: Sequence[float]) -> Tensor:
        """The values, one for each prediction, as (P,) float32 on the device of the predictions."""
        return torch.tensor(values, dtype=torch.float32).to(self.query.device, non_blocking=True)

    def with_class_loss_factors(self, loss: Tensor, has_object: Tensor, num_classes: int) -> Tensor:
        """Class losses (B, Q), multiplied with the factors of each prediction's assignment."""
        split = zip(self.parts, loss.split(self.sizes, 1), has_object.split(self.sizes, 1), strict=True)
        changed = []
        for part, values, found in split:
            factors = part.assignment.class_loss_factors(found, num_classes)
            changed.append(values if factors is None else values * factors)
        return torch.cat(changed, 1)

    def sum_by_prediction(self, values: Tensor) -> Tensor:
        """Sums values of pairs (M,) within each prediction: (P,)."""
        return values.new_zeros(len(self.parts)).index_add(0, self.matches.stage, values)

    def pair_boxes(self, targets: BatchTargets) -> tuple[Tensor, Tensor]:
        """Predicted and true boxes of all pairs, (M, 4) normalised cxcywh each."""
        return self.prediction.boxes[self.matches.image, self.query], targets.boxes[self.matches.object]

    @torch.no_grad()
    def pair_iou(self, targets: BatchTargets) -> Tensor:
        """IoU of the boxes of all pairs, (M,), without gradient."""
        return aligned_iou(*(box_convert(b, "cxcywh", "xyxy") for b in self.pair_boxes(targets)))

    def same_object(self, objects: int) -> Tensor:
        """(M,) int64, equal for pairs of the same object, prediction and block of queries."""
        blocks = self.per_prediction([p.assignment.blocks for p in self.parts]).long()[self.matches.stage]
        sizes = self.per_prediction(self.sizes).long()[self.matches.stage]
        block = self.matches.query * blocks // sizes
        most = max((p.assignment.blocks for p in self.parts), default=1)
        return (self.matches.stage * most + block) * objects + self.matches.object
