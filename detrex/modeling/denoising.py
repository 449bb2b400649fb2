"""Denoising queries: noised ground truth that the decoder learns to restore (DN-DETR, arXiv 2203.01305;
with masks in Mask DINO).

Shape letters: B images, N objects, P denoising queries, Q matching queries, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detrex.layers import inverse_sigmoid
from detrex.structures import BatchTargets


@dataclass
class DenoisingQueries:
    """Queries in ``groups`` groups of ``size``; object j of an image is query j of every group.

    Attributes:
        content: (B, P, D), P = groups * size; zeros beyond an image's own objects.
        reference: (B, P, 4) logits of normalised cxcywh.
        groups, size: Python ints.
    """

    content: Tensor
    reference: Tensor
    groups: int
    size: int

    def blocked(self, num_queries: int) -> Tensor:
        """Attention mask (P + Q, P + Q) bool for denoising queries before ``num_queries`` matching ones.

        True where the query of the row must not see that of the column: matching queries would read the
        answer off the denoising ones, and groups would read it off one another.
        """
        group = torch.arange(self.groups, device=self.content.device).repeat_interleave(self.size)
        group = torch.cat([group, group.new_full((num_queries,), -1)])
        return (group[None] >= 0) & (group[:, None] != group[None])


class Denoising(nn.Module):
    """Makes denoising queries from ground truth.

    Args:
        num_classes: number of classes of the label embedding.
        hidden_dim: D.
        num_queries: about how many queries to spend on an image; the number of groups follows from it.
        label_noise: a label is replaced by a random one with probability ``label_noise / 2``.
        box_noise: centres move by up to ``box_noise / 2`` of a box's size, sizes by up to ``box_noise``.
    """

    def __init__(
        self,
        num_classes: int,
        hidden_dim: int = 256,
        num_queries: int = 100,
        label_noise: float = 0.4,
        box_noise: float = 0.4,
    ):
        super().__init__()
        self.num_queries, self.label_noise, self.box_noise = num_queries, label_noise, box_noise
        self.label_embed = nn.Embedding(num_classes, hidden_dim)

    def forward(self, targets: BatchTargets) -> DenoisingQueries | None:
        """Noised queries, or None where no group fits: no objects at all, or more than ``num_queries``."""
        size = max(targets.counts, default=0)
        groups = self.num_queries // size if size else 0
        if groups == 0:
            return None
        batch, count = len(targets.counts), len(targets)
        labels = self._noised_labels(targets.labels.repeat(groups))
        boxes = self._noised_boxes(targets.boxes.repeat(groups, 1))
        within = torch.cat([torch.arange(n) for n in targets.counts]).to(labels.device)
        group = torch.arange(groups, device=labels.device).repeat_interleave(count)
        place = targets.image.repeat(groups) * (groups * size) + group * size + within.repeat(groups)

        embedded = self.label_embed(labels)
        content = embedded.new_zeros(batch * groups * size, embedded.shape[-1]).index_copy(0, place, embedded)
        reference = boxes.new_zeros(batch * groups * size, 4).index_copy(0, place, inverse_sigmoid(boxes))
        return DenoisingQueries(
            content.unflatten(0, (batch, -1)), reference.unflatten(0, (batch, -1)), groups, size
        )

    def _noised_labels(self, labels: Tensor) -> Tensor:
        replaced = torch.rand(labels.shape, device=labels.device) < self.label_noise / 2
        return torch.where(replaced, torch.randint_like(labels, self.label_embed.num_embeddings), labels)

    def _noised_boxes(self, boxes: Tensor) -> Tensor:
        reach = torch.cat([boxes[:, 2:] / 2, boxes[:, 2:]], -1) * self.box_noise
        return (boxes + (2 * torch.rand_like(boxes) - 1) * reach).clamp(0, 1)
