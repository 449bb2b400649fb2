"""What a model returns for the objects of one image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detrex.structures.rle import RunLengthMasks


class Instances:
    """Detected objects of one image; field names are detectron2's, so its tools can be fed.

    Attributes:
        image_size: (height, width) in pixels of the frame that boxes and masks refer to.
        pred_boxes: (N, 4) float32, absolute xyxy in pixels.
        scores: (N,) float32 in [0, 1], in descending order as models return them.
        pred_classes: (N,) int64, class indices.
        pred_masks: (N, H, W) bool, or None from models without masks. Models return compressed masks; the
            first access turns them into a tensor, which takes N x H x W bytes from then on.
            :attr:`masks` stay compressed.
        track_ids: (N,) int64, from 1 on: an object has the same number in all frames of a video; None outside
            of videos.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        pred_boxes: Tensor,
        scores: Tensor,
        pred_classes: Tensor,
        pred_masks: Tensor | RunLengthMasks | None = None,
        track_ids: Tensor | None = None,
    ):
        self.image_size, self.pred_boxes = image_size, pred_boxes
        self.scores, self.pred_classes = scores, pred_classes
        self._masks = pred_masks
        self.track_ids = track_ids

    @property
    def pred_masks(self) -> Tensor | None:
        if isinstance(self._masks, RunLengthMasks):
            self._masks = self._masks.dense(self.pred_boxes.device)
        return self._masks

    @pred_masks.setter
    def pred_masks(self, masks: Tensor | RunLengthMasks | None) -> None:
        self._masks = masks

    @property
    def masks(self) -> RunLengthMasks | None:
        """N compressed masks, or None from models without masks."""
        return RunLengthMasks.encode(self._masks) if isinstance(self._masks, Tensor) else self._masks

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Tensor | slice) -> Instances:
        masks = None if self._masks is None else self._masks[index]
        return self._map(lambda t: t[index], masks)

    def __repr__(self) -> str:
        return f"Instances({len(self)} objects, image_size={self.image_size})"

    def to(self, device: torch.device | str, copy: bool = False) -> Instances:
        """A copy on another device; compressed masks stay on the CPU."""
        masks = self._masks.to(device, copy=copy) if isinstance(self._masks, Tensor) else self._masks
        return self._map(lambda t: t.to(device, copy=copy), masks)

    def has(self, name: str) -> bool:
        """Whether the field ``name`` is present."""
        return self._masks is not None if name == "pred_masks" else getattr(self, name, None) is not None

    def _map(self, f: Callable[[Tensor], Tensor], masks: Tensor | RunLengthMasks | None) -> Instances:
        tracks = None if self.track_ids is None else f(self.track_ids)
        boxes, scores, classes = f(self.pred_boxes), f(self.scores), f(self.pred_classes)
        return Instances(self.image_size, boxes, scores, classes, masks, tracks)
