"""What a model returns for the objects of one image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Instances:
    """Detected objects of one image; field names are detectron2's, so its tools can be fed.

    Attributes:
        image_size: (height, width) in pixels of the frame that boxes and masks refer to.
        pred_boxes: (N, 4) float32, absolute xyxy in pixels.
        scores: (N,) float32 in [0, 1], in descending order as models return them.
        pred_classes: (N,) int64, class indices.
        pred_masks: (N, H, W) bool, or None from models without masks.
    """

    image_size: tuple[int, int]
    pred_boxes: Tensor
    scores: Tensor
    pred_classes: Tensor
    pred_masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Tensor | slice) -> Instances:
        return self._map(lambda t: t[index])

    def to(self, device: torch.device | str) -> Instances:
        return self._map(lambda t: t.to(device))

    def has(self, name: str) -> bool:
        """Whether the field ``name`` is present."""
        return getattr(self, name, None) is not None

    def _map(self, f) -> Instances:
        masks = None if self.pred_masks is None else f(self.pred_masks)
        return replace(
            self,
            pred_boxes=f(self.pred_boxes),
            scores=f(self.scores),
            pred_classes=f(self.pred_classes),
            pred_masks=masks,
        )
