"""The set criterion: what is supervised, by what, and how much it counts.

Shape letters: B images, Q queries of all parts together, P parts, M matched pairs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from detrex.modeling.decoder import DecoderOutput
from detrex.modeling.losses import FocalClassLoss, SoftmaxClassLoss
from detrex.modeling.mask_losses import MaskLosses
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.points import GridPoints, RandomPoints
from detrex.modeling.supervision import Matches, Part, Supervision
from detrex.runtime.distributed import mean_over_processes
from detrex.structures import BatchTargets, Prediction, aligned_giou


class SetCriterion(nn.Module):
    """Weighted losses of every prediction stage.

    Args:
        matcher: assigns queries to objects.
        class_loss: focal or softmax.
        box_weight, giou_weight, mask_weight, dice_weight: of L1, GIoU, mask cross-entropy and dice. A weight
            of 0 leaves the loss out.
        points: where masks are compared.
        box_stuff: whether stuff regions take part in box losses (the published panoptic models do it).
            Without, box losses still divide by the number of all objects.
        initial_denoising: whether denoising queries are supervised before the first layer too. Published
            models do it with queries from proposals, and not with learned ones.
        memory_limit_mb: what the mask losses may take, besides their inputs and the gradients of these;
            losses that take more are computed in pieces, and again in the backward pass.
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        class_loss: FocalClassLoss | SoftmaxClassLoss,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        points: RandomPoints | GridPoints | None = None,
        box_stuff: bool = True,
        initial_denoising: bool = True,
        memory_limit_mb: int = 2048,
    ):
        super().__init__()
        self.matcher, self.class_loss = matcher, class_loss
        self.box_weight, self.giou_weight = box_weight, giou_weight
        self.mask_weight, self.dice_weight = mask_weight, dice_weight
        self.points = points or RandomPoints()
        self.box_stuff, self.initial_denoising = box_stuff, initial_denoising
        self.memory_limit_mb = memory_limit_mb

    def forward(self, output: DecoderOutput, targets: BatchTargets) -> dict[str, Tensor]:
        """Losses by published name (``loss_ce``, ``loss_mask_3``, ``loss_dice_interm``, ``loss_bbox_dn_0``).

        Every entry is weighted and counts once in the total. Computed in float32 whatever the autocast.
        """
        device = output.final.logits.device
        with torch.autocast(device.type, enabled=False):
            supervision = self._supervise(output, targets)
            objects = mean_over_processes(torch.full((), float(len(targets)), device=device)).clamp(min=1)
            count = objects * supervision.per_part([p.queries_per_object for p in supervision.parts])  # (P,)
            losses = {
                self.class_loss.name: self._class_loss(supervision, targets, count),
                **self._box_losses(supervision, targets, count),
                **self._mask_losses(supervision, output.pixel_embed, targets, count),
            }
        return {
            loss + part.suffix: value
            for loss, values in losses.items()
            for part, value in zip(supervision.parts, values, strict=True)
        }

    def parts(self, output: DecoderOutput) -> list[Part]:
        """What of ``output`` is supervised, and how; a project with other parts overrides it."""
        suffixes = [*(f"_{i}" for i in range(len(output.layers) - 1)), ""]
        # Further groups of queries stand beside the first, each matched by itself.
        stages = [Prediction.concatenate(list(s)) for s in zip(output.layers, *output.groups, strict=True)]
        parts = [Part(*row, groups=1 + len(output.groups)) for row in zip(suffixes, stages, strict=True)]
        if output.proposals is not None:
            parts.append(Part("_interm", output.proposals, binary=output.binary_proposals))
        if output.denoising:
            first = int(output.initial and not self.initial_denoising)
            rows = list(zip(suffixes, output.denoising, strict=True))[first:]
            parts += [Part(f"_dn{s}", p, denoising=output.denoising_queries) for s, p in rows]
        return parts

    def _supervise(self, output: DecoderOutput, targets: BatchTargets) -> Supervision:
        parts = self.parts(output)
        matched = [p for p in parts if p.denoising is None]
        known = [p for p in parts if p.denoising is not None]
        matches = Matches.concatenate(
            self.matcher(matched, output.pixel_embed, targets),
            *(Matches.known(len(matched) + i, p.denoising, targets.counts) for i, p in enumerate(known)),
        )
        return Supervision.of([*matched, *known], matches, len(targets.counts))

    def _class_loss(self, supervision: Supervision, targets: BatchTargets, count: Tensor) -> Tensor:
        logits = supervision.joined.logits
        background = logits.shape[-1] - self.class_loss.no_object_class
        labels = torch.full(logits.shape[:2], background, device=logits.device)
        matches = supervision.matches
        has_class = supervision.per_part([not p.binary for p in supervision.parts]).long()
        truth = targets.labels[matches.object] * has_class[matches.part]
        labels[matches.image, supervision.joined_query] = truth
        sizes = [p.size for p in supervision.parts]
        loss, weight = self.class_loss.per_query(logits, labels)
        total = torch.stack([part.sum() for part in loss.split(sizes, 1)])
        if weight is not None:
            count = torch.stack([part.sum() for part in weight.split(sizes, 1)])
        return self.class_loss.weight * total / count

    def _box_losses(
        self, supervision: Supervision, targets: BatchTargets, count: Tensor
    ) -> dict[str, Tensor]:
        matches = supervision.matches
        predicted = supervision.joined.boxes[matches.image, supervision.joined_query]
        truth = targets.boxes[matches.object]
        counted = torch.ones_like(predicted[:, 0]) if self.box_stuff else targets.is_thing[matches.object]
        losses = {}
        if self.box_weight:
            distance = F.l1_loss(predicted, truth, reduction="none").sum(-1)
            losses["loss_bbox"] = self.box_weight * supervision.sum_by_part(distance * counted) / count
        if self.giou_weight:
            giou = aligned_giou(*(box_convert(b, "cxcywh", "xyxy") for b in (predicted, truth)))
            losses["loss_giou"] = self.giou_weight * supervision.sum_by_part((1 - giou) * counted) / count
        return losses

    def _mask_losses(
        self, supervision: Supervision, pixel_embed: Tensor | None, targets: BatchTargets, count: Tensor
    ) -> dict[str, Tensor]:
        embed = supervision.joined.mask_embed
        if embed is None or targets.masks is None or not (self.mask_weight or self.dice_weight):
            return {}
        matches = supervision.matches
        cross_entropy, dice = MaskLosses(self.points, self.memory_limit_mb)(
            embed[matches.image, supervision.joined_query],
            pixel_embed.float(),
            supervision.pairs_per_image,
            targets.masks,
            matches.object,
        )
        losses = {}
        if self.mask_weight:
            losses["loss_mask"] = self.mask_weight * supervision.sum_by_part(cross_entropy) / count
        if self.dice_weight:
            losses["loss_dice"] = self.dice_weight * supervision.sum_by_part(dice) / count
        return losses
