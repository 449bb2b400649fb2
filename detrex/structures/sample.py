"""The input of a model: one :class:`Sample` per image, with :class:`Targets` in training."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypedDict

import torch
from torch import Tensor

from detrex.structures.prompts import Prompts


@dataclass
class Targets:
    """Ground truth of one image, in the pixel frame of the image it comes with.

    Attributes:
        labels: (N,) int64, class indices.
        boxes: (N, 4) float32, absolute xyxy in pixels.
        masks: (N, H, W) bool, or None if the data has boxes only.
        is_thing: (N,) bool; ``False`` for a stuff region.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor | None
    is_thing: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Targets:
        """The objects chosen by ``index`` ((N,) bool or (M,) int64)."""
        return replace(self, **{k: v[index] for k, v in self._tensors().items()})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Targets:
        moved = {k: v.to(device, non_blocking=non_blocking) for k, v in self._tensors().items()}
        return replace(self, **moved)

    @classmethod
    def empty(cls, height: int, width: int) -> Targets:
        """No objects, in an image of ``height`` x ``width`` pixels."""
        return cls(
            labels=torch.zeros(0, dtype=torch.int64),
            boxes=torch.zeros(0, 4),
            masks=torch.zeros(0, height, width, dtype=torch.bool),
            is_thing=torch.zeros(0, dtype=torch.bool),
        )

    def _tensors(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in values.items() if v is not None}


class Sample(TypedDict, total=False):
    """One image for a model. Only ``image`` is needed.

    ``original``: (3, H, W), the image before it was resized; views of other sizes are made from it.
    ``image``: (3, H, W) RGB, uint8 or float in 0..255. ``height``, ``width``: the size at which results
    are wanted (default: the image's own). ``image_id``, ``file_name``: for messages and evaluation.
    ``targets``: ground truth in the frame of ``image``. ``vocabulary``: for a model that reads words, which
    of its vocabularies the labels refer to (default: the first). ``prompts``: for a model that takes clicks
    and boxes, the prompts on this image.
    """

    image: Tensor
    original: Tensor
    height: int
    width: int
    image_id: int | str
    file_name: str
    targets: Targets
    vocabulary: str
    prompts: Prompts
