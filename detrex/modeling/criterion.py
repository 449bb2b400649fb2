"""The set criterion: what is supervised, by what, and how much it counts.

Shape letters: B images, Q queries of all parts together, P parts, M matched pairs, K points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from detrex.layers import sample_bool_masks, sample_maps
from detrex.modeling.decoder import DecoderOutput
from detrex.modeling.denoising import DenoisingQueries
from detrex.modeling.losses import FocalClassLoss, SoftmaxClassLoss, mask_cross_entropy, mask_dice
from detrex.modeling.matcher import HungarianMatcher, Matches
from detrex.modeling.points import GridPoints, RandomPoints
from detrex.structures import BatchTargets, Prediction, aligned_giou
from detrex.utils.distributed import mean_over_processes


@dataclass
class Supervision:
    """All supervised predictions side by side, so that every loss is one pass.

    Attributes:
        names: suffix of every part's losses, in published terms: "" is the last layer, "_0" the initial
            prediction, "_interm" the proposals, "_dn..." the denoising queries.
        sizes: queries of every part.
        joined: the parts' predictions, concatenated over queries.
        matches: which query of which part answers for which object, ordered by image.
        pairs_per_image: how many matches every image has, Python ints.
        repeats: (P,) how many queries of a part answer for one object: groups of a denoising part, else 1.
    """

    names: list[str]
    sizes: list[int]
    joined: Prediction
    matches: Matches
    pairs_per_image: list[int]
    repeats: list[int]

    @cached_property
    def joined_query(self) -> Tensor:
        """(M,) index of every matched query among the joined ones."""
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(0).to(self.matches.part.device)
        return starts[self.matches.part] + self.matches.query

    def sum_by_part(self, values: Tensor) -> Tensor:
        """Per-pair values (M,) summed within parts: (P,)."""
        return values.new_zeros(len(self.sizes)).index_add(0, self.matches.part, values)


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
    ):
        super().__init__()
        self.matcher, self.class_loss = matcher, class_loss
        self.box_weight, self.giou_weight = box_weight, giou_weight
        self.mask_weight, self.dice_weight = mask_weight, dice_weight
        self.points = points or RandomPoints()
        self.box_stuff, self.initial_denoising = box_stuff, initial_denoising

    def forward(self, output: DecoderOutput, targets: BatchTargets) -> dict[str, Tensor]:
        """Losses by published name (``loss_ce``, ``loss_mask_3``, ``loss_dice_interm``, ``loss_bbox_dn_0``).

        Every entry is weighted and counts once in the total. Computed in float32 whatever the autocast.
        """
        with torch.autocast(output.pixel_embed.device.type, enabled=False):
            supervision = self._supervise(output, targets)
            objects = mean_over_processes(
                torch.tensor(float(len(targets)), device=output.pixel_embed.device)
            ).clamp(min=1)
            count = objects * torch.tensor(supervision.repeats, device=objects.device)  # (P,)
            losses = {
                self.class_loss.name: self._class_loss(supervision, targets, count),
                **self._box_losses(supervision, targets, count),
                **self._mask_losses(supervision, output.pixel_embed.float(), targets, count),
            }
        return {
            loss + suffix: values[part]
            for loss, values in losses.items()
            for part, suffix in enumerate(supervision.names)
        }

    def _supervise(self, output: DecoderOutput, targets: BatchTargets) -> Supervision:
        layer_names = [*(f"_{i}" for i in range(len(output.layers) - 1)), ""]
        parts, names = list(output.layers), list(layer_names)
        if output.proposals is not None:
            parts, names = [*parts, output.proposals], [*names, "_interm"]
        matches = self.matcher(parts, output.pixel_embed, targets)
        repeats = [1] * len(parts)
        if output.denoising:
            first = int(output.initial and not self.initial_denoising)
            denoising, queries = output.denoising[first:], output.denoising_queries
            known = _known_matches(queries, len(denoising), targets.counts, first_part=len(parts))
            matches = Matches.concatenate(matches, known)
            parts += denoising
            names += [f"_dn{name}" for name in layer_names[first:]]
            repeats += [queries.groups] * len(denoising)
        joined = Prediction.concatenate(parts)
        joined = Prediction(joined.logits.float(), joined.boxes.float(), joined.mask_embed.float())
        sizes = [p.logits.shape[1] for p in parts]
        matches, pairs = matches.ordered_by_image(len(targets.counts))
        return Supervision(names, sizes, joined, matches.to(joined.logits.device), pairs, repeats)

    def _class_loss(self, supervision: Supervision, targets: BatchTargets, count: Tensor) -> Tensor:
        logits = supervision.joined.logits
        background = logits.shape[-1] - self.class_loss.no_object_class
        labels = torch.full(logits.shape[:2], background, device=logits.device)
        matches = supervision.matches
        labels[matches.image, supervision.joined_query] = targets.labels[matches.object]
        loss, weight = self.class_loss.per_query(logits, labels)
        total = torch.stack([part.sum() for part in loss.split(supervision.sizes, 1)])
        if weight is not None:
            count = torch.stack([part.sum() for part in weight.split(supervision.sizes, 1)])
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
        self, supervision: Supervision, pixel_embed: Tensor, targets: BatchTargets, count: Tensor
    ) -> dict[str, Tensor]:
        if targets.masks is None or not (self.mask_weight or self.dice_weight):
            return {}
        matches = supervision.matches
        embed = supervision.joined.mask_embed[matches.image, supervision.joined_query]  # (M, D)
        rows = zip(embed.split(supervision.pairs_per_image), pixel_embed, strict=True)
        masks = torch.cat([e @ pixels.flatten(1) for e, pixels in rows]).unflatten(1, pixel_embed.shape[2:])
        points = self.points.per_mask(masks.detach())
        truth = sample_bool_masks(targets.masks, matches.object, points)
        logits = sample_maps(masks[:, None], points).squeeze(1)
        losses = {}
        if self.mask_weight:
            per_pair = mask_cross_entropy(logits, truth)
            losses["loss_mask"] = self.mask_weight * supervision.sum_by_part(per_pair) / count
        if self.dice_weight:
            per_pair = mask_dice(logits, truth)
            losses["loss_dice"] = self.dice_weight * supervision.sum_by_part(per_pair) / count
        return losses


def _known_matches(queries: DenoisingQueries, parts: int, counts: list[int], first_part: int) -> Matches:
    """Object j of an image is query j of every group, in each denoising part."""
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    within = torch.cat([torch.arange(n) for n in counts])
    group = torch.arange(queries.groups).repeat_interleave(len(image))
    query = group * queries.size + within.repeat(queries.groups)
    part = torch.arange(first_part, first_part + parts).repeat_interleave(len(query))
    return Matches(
        part=part,
        image=image.repeat(queries.groups * parts),
        query=query.repeat(parts),
        object=torch.arange(len(image)).repeat(queries.groups * parts),
    )
