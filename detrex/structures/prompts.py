"""Prompts, which are clicks and boxes on an image, and the masks that answer them.

Shape letters: B images, P prompts of an image, N masks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from detrex.structures.images import PaddedImages
from detrex.structures.rle import RunLengthMasks

BOX, POINT = 0, 1
POINT_SIZE = 0.005
"""Width and height of the box that stands for a click, as a fraction of the image."""


@dataclass
class Prompts:
    """Clicks and boxes on images.

    Attributes:
        boxes: (B, P, 4) normalised cxcywh, relative to each image without padding; a click is a small box.
        kind: (B, P) int64, ``POINT`` or ``BOX``.
    """

    boxes: Tensor
    kind: Tensor

    @classmethod
    def clicks(cls, points: Tensor) -> Prompts:
        """Clicks at points (B, P, 2), normalised (x, y) in [0, 1]."""
        boxes = torch.cat([points, torch.full_like(points, POINT_SIZE)], -1)
        return cls(boxes, torch.full(boxes.shape[:2], POINT, device=boxes.device))

    def relative_to_padded(self, images: PaddedImages) -> Prompts:
        """The same prompts, relative to the padded input of a batch."""
        height, width = images.padded_size
        scale = torch.tensor([[w / width, h / height] for h, w in images.sizes]).repeat(1, 2)
        return Prompts(self.boxes * scale[:, None].to(self.boxes), self.kind)

    def to(self, device: torch.device) -> Prompts:
        """The same prompts on ``device``."""
        return Prompts(self.boxes.to(device), self.kind.to(device))

    def split(self, size: int) -> list[Prompts]:
        """Splits the prompts into consecutive groups of at most ``size``."""
        parts = zip(self.boxes.split(size, 1), self.kind.split(size, 1), strict=True)
        return [Prompts(*part) for part in parts]


@dataclass
class PromptedMasks:
    """Masks that answer prompts on one image.

    Attributes:
        masks: at the size that was asked for.
        quality: (N,) the IoU that the model expects of each mask; not bounded.
        level: (N,) int64, granularity from 1, the largest, to the smallest.
        prompt: (N,) int64, number of the prompt that the mask answers.
        boxes: (N, 4) absolute xyxy from the first to the last pixel; 0 for a mask without pixels.
    """

    masks: RunLengthMasks
    quality: Tensor
    level: Tensor
    prompt: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.quality)

    def __getitem__(self, index: Tensor | slice) -> PromptedMasks:
        """Some of the masks, by a slice, indices or a condition."""
        return PromptedMasks(*(getattr(self, f.name)[index] for f in fields(self)))
