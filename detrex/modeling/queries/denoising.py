"""Denoising queries: noised ground truth that the decoder learns to restore (DN-DETR, arXiv 2203.01305;
with masks in Mask DINO).

Shape letters: B images, N objects, P denoising queries, Q matching queries, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from detrex.layers import LOGIT_EPS
from detrex.modeling.assignment import Assignment, Known
from detrex.modeling.queries.group import MATCHING, QueryGroup
from detrex.structures import BatchTargets


class NoisedObjects(nn.Module):
    """Makes denoising queries from ground truth, with noise on boxes.

    Args:
        label_embed: turns labels (M,) into contents (M, D).
        num_queries: approximate number of queries for an image, from which the number of groups follows.
        box_noise: centres move by up to ``box_noise / 2`` of a box's size, sizes by up to ``box_noise``.
        min_groups: smallest number of groups, however many objects an image has.
        supervise_initial: whether the prediction before the first layer, if the decoder makes one, is also
            supervised for these queries. Published Mask DINO does so with queries from proposals, but not
            with learned ones.
    """

    repeats = 1  # number of queries for every object in a group

    def __init__(
        self,
        label_embed: nn.Module,
        num_queries: int = 100,
        box_noise: float = 0.4,
        min_groups: int = 0,
        supervise_initial: bool = True,
    ):
        super().__init__()
        self.label_embed, self.num_queries, self.box_noise = label_embed, num_queries, box_noise
        self.min_groups, self.supervise_initial = min_groups, supervise_initial

    def forward(self, targets: BatchTargets) -> QueryGroup:
        """Noised queries in blocks of equal size; query j of every block is object j of the image.

        Queries beyond the objects of an image have zeros as contents and boxes in the middle. With
        contrastive denoising, the second half of each block consists of negatives. The group has no queries
        if there are no objects at all, or more than fit into one block.
        """
        most = max(targets.counts, default=0)
        blocks = self.num_groups(most) if most else 0
        batch, count = len(targets.counts), len(targets)
        copies, size = blocks * self.repeats, most * self.repeats
        labels = self._noised_labels(targets.labels.repeat(copies))
        boxes = self._noised_boxes(targets.boxes.repeat(copies, 1), count).clamp(LOGIT_EPS, 1 - LOGIT_EPS)
        within = torch.cat([torch.arange(n) for n in targets.counts]).to(labels.device, non_blocking=True)
        copy = torch.arange(copies, device=labels.device).repeat_interleave(count)  # (M,)
        place = targets.image.repeat(copies) * (blocks * size) + copy * most + within.repeat(copies)  # (M,)

        embedded = self._content(labels)  # (M, D)
        content = embedded.new_zeros(batch * blocks * size, embedded.shape[-1]).index_copy(0, place, embedded)
        reference = boxes.new_full((batch * blocks * size, 4), 0.5).index_copy(0, place, boxes)
        return QueryGroup(
            content.view(batch, blocks * size, content.shape[-1]),
            reference.view(batch, blocks * size, 4),
            assignment=self._assignment(blocks, size),
            name="denoising",
            sees=(MATCHING,),
            blocks=blocks,
            loss_suffix="_dn{stage}",
            supervise_initial=self.supervise_initial,
        )

    def num_groups(self, most: int) -> int:
        """Number of groups for a batch whose images have up to ``most`` objects."""
        return max(self.min_groups, self.num_queries // most)

    def _content(self, labels: Tensor) -> Tensor:
        """Embeds labels (M,) as contents (M, D)."""
        return self.label_embed(labels)

    def _noised_labels(self, labels: Tensor) -> Tensor:
        """The labels (M,) from which contents are made; by default without noise."""
        return labels

    def _assignment(self, blocks: int, size: int) -> Assignment:
        """The assignment of queries in ``blocks`` blocks of ``size`` each."""
        return Known(blocks, size)

    def _noised_boxes(self, boxes: Tensor, count: int) -> Tensor:  # noqa: ARG002
        """Adds noise to normalised cxcywh boxes (M, 4), which are successive copies of ``count`` boxes."""
        reach = torch.cat([boxes[:, 2:] / 2, boxes[:, 2:]], -1) * self.box_noise  # (M, 4)
        return (boxes + (2 * torch.rand_like(boxes) - 1) * reach).clamp(0, 1)


class Denoising(NoisedObjects):
    """Makes denoising queries from ground truth, with noise on boxes and labels, and learned contents.

    Args:
        num_classes: number of classes of the label embedding.
        hidden_dim: D.
        label_noise: a label is replaced by a random one with probability ``label_noise / 2``.
        num_queries, box_noise, min_groups, supervise_initial: see :class:`NoisedObjects`.
    """

    def __init__(
        self,
        num_classes: int,
        hidden_dim: int = 256,
        num_queries: int = 100,
        label_noise: float = 0.4,
        box_noise: float = 0.4,
        min_groups: int = 0,
        supervise_initial: bool = True,
    ):
        embedding = nn.Embedding(num_classes, hidden_dim)
        super().__init__(embedding, num_queries, box_noise, min_groups, supervise_initial)
        self.label_noise, self.num_labels = label_noise, num_classes

    def _noised_labels(self, labels: Tensor) -> Tensor:
        replaced = torch.rand(labels.shape, device=labels.device) < self.label_noise / 2  # (M,)
        return torch.where(replaced, torch.randint_like(labels, self.num_labels), labels)


class ContrastiveDenoising(Denoising):
    """Every group has each object twice: once to be restored, once with more noise to be rejected (DINO).

    Args:
        num_classes, hidden_dim, num_queries, label_noise: see :class:`Denoising`.
        box_noise: the corners of a box move by up to ``box_noise / 2`` of its size, those of negatives by
            one to two times that (arXiv 2203.03605).
    """

    repeats = 2

    def __init__(
        self,
        num_classes: int,
        hidden_dim: int = 256,
        num_queries: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
    ):
        super().__init__(num_classes, hidden_dim, num_queries, label_noise, box_noise, min_groups=1)

    def _noised_boxes(self, boxes: Tensor, count: int) -> Tensor:
        reach = (boxes[:, 2:] / 2).repeat(1, 2) * self.box_noise  # (M, 4)
        part = torch.rand_like(boxes)
        negative = (torch.arange(len(boxes), device=boxes.device) // count) % 2  # (M,)
        sign = torch.randint_like(boxes, 2) * 2 - 1
        corners = box_convert(boxes, "cxcywh", "xyxy") + (part + negative[:, None]) * sign * reach
        return box_convert(corners.clamp(0, 1), "xyxy", "cxcywh")


class IndicatedDenoising(Denoising):
    """Denoising queries whose last channel is 1, in a fixed number of groups (DN-DETR).

    The last channel of matching queries is 0.

    Args:
        num_classes, label_noise, box_noise: see :class:`Denoising`.
        hidden_dim: D.
        num_groups: number of groups in every batch with objects.
        no_object_label: the embedding has an additional label for "no object", which noise can draw, too.
    """

    def __init__(
        self,
        num_classes: int,
        hidden_dim: int = 256,
        num_groups: int = 5,
        label_noise: float = 0.2,
        box_noise: float = 0.4,
        no_object_label: bool = False,
    ):
        num_labels = num_classes + no_object_label
        super().__init__(num_labels, hidden_dim - 1, 0, label_noise, box_noise, min_groups=num_groups)

    def _content(self, labels: Tensor) -> Tensor:
        return F.pad(super()._content(labels), (0, 1), value=1.0)
