"""The ground truth of a whole batch, concatenated over its images.

Shape letters: B images, N objects of the batch, H and W padded pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert

from detrex.structures.sample import Targets


@dataclass
class BatchTargets:
    """Objects of all images one after another, with boxes in the models' own unit.

    Attributes:
        labels: (N,) int64.
        boxes: (N, 4) normalised cxcywh, relative to the padded input.
        masks: (N, H, W) bool at padded input size, or None.
        is_thing: (N,) bool.
        image: (N,) int64, the index of each object's image in the batch.
        counts: objects per image, Python ints.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor | None
    is_thing: Tensor
    image: Tensor
    counts: list[int]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def collate(
        cls, targets: list[Targets], padded_size: tuple[int, int], device: torch.device
    ) -> BatchTargets:
        """Targets in pixels of their images, brought to ``device`` and to one padded frame."""
        counts = [len(t) for t in targets]
        height, width = padded_size
        scale = torch.tensor([width, height, width, height], dtype=torch.float32)
        boxes = box_convert(torch.cat([t.boxes for t in targets]).float(), "xyxy", "cxcywh") / scale
        return cls(
            labels=torch.cat([t.labels for t in targets]).to(device, non_blocking=True),
            boxes=boxes.to(device, non_blocking=True),
            masks=_pad_masks(targets, counts, padded_size, device),
            is_thing=torch.cat([t.is_thing for t in targets]).to(device, non_blocking=True),
            image=torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(device),
            counts=counts,
        )


def _pad_masks(
    targets: list[Targets], counts: list[int], padded_size: tuple[int, int], device: torch.device
) -> Tensor | None:
    if any(t.masks is None for t in targets):
        return None
    masks = torch.zeros(sum(counts), *padded_size, dtype=torch.bool)
    for into, target in zip(masks.split(counts), targets, strict=True):
        into[:, : target.masks.shape[1], : target.masks.shape[2]] = target.masks
    return masks.to(device, non_blocking=True)
