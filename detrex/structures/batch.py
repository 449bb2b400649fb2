"""The ground truth of a whole batch, concatenated over its images.

Shape letters: N objects of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert

from detrex.structures.masks import PackedMasks
from detrex.structures.sample import Targets


@dataclass
class BatchTargets:
    """Objects of all images one after another, with boxes in the unit of the models.

    Attributes:
        labels: (N,) int64.
        boxes: (N, 4) normalised cxcywh, relative to the padded input or to the image, as the model needs.
        masks: N masks at padded input size, or None.
        is_thing: (N,) bool.
        image: (N,) int64, the index of each object's image in the batch.
        counts: objects per image, Python ints.
    """

    labels: Tensor
    boxes: Tensor
    masks: PackedMasks | None
    is_thing: Tensor
    image: Tensor
    counts: list[int]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def collate(
        cls,
        targets: list[Targets],
        padded_size: tuple[int, int],
        device: torch.device,
        box_sizes: list[tuple[int, int]] | None = None,
    ) -> BatchTargets:
        """Moves targets, whose boxes are in pixels of their images, to ``device`` and into one padded frame.

        Args:
            targets: one for each image.
            padded_size: (height, width) of the batch, to which masks are padded.
            device: of the result.
            box_sizes: for each image, the (height, width) that divides its boxes; by default the padded size.
        """
        counts = [len(t) for t in targets]
        scale = torch.tensor(box_sizes or [padded_size] * len(targets), dtype=torch.float32)
        scale = scale.flip(1).repeat(1, 2).repeat_interleave(torch.tensor(counts), 0)
        # In the order of the detrex zoo: rounding decides in losses that ask whether a point lies in a box.
        boxes = box_convert(torch.cat([t.boxes for t in targets]).float() / scale, "xyxy", "cxcywh")
        masks = [t.masks for t in targets if t.masks is not None]
        packed = None
        if len(masks) == len(targets):
            packed = PackedMasks.pack(masks, padded_size).to(device, non_blocking=True)
        return cls(
            labels=torch.cat([t.labels for t in targets]).to(device, non_blocking=True),
            boxes=boxes.to(device, non_blocking=True),
            masks=packed,
            is_thing=torch.cat([t.is_thing for t in targets]).to(device, non_blocking=True),
            image=torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(device),
            counts=counts,
        )
