"""All masks of a picture: the answers to a grid of clicks, filtered (Semantic-SAM, SAM).

Shape letters: N masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

from detrex.modeling.prompts.regions import mask_boxes, without_small_regions
from detrex.structures import PromptedMasks, RunLengthMasks


@dataclass
class AutomaticMasks:
    """Settings of :meth:`~detrex.modeling.prompts.PromptDetector.everything`.

    Attributes:
        points_per_side: clicks along each side of the grid.
        points_per_call: clicks that go through the decoder together.
        quality: masks with a lower expected IoU are left out.
        stability: masks with a lower stability are left out, see
            :func:`~detrex.modeling.prompts.regions.stability`.
        nms_iou: masks whose box overlaps that of a better one by more than this IoU are left out.
        min_region: holes of fewer pixels are filled, islands of fewer pixels removed.
        levels: granularities, from 1 (the largest) to the smallest; None for all.
    """

    points_per_side: int = 32
    points_per_call: int = 200
    quality: float = 0.88
    stability: float = 0.92
    nms_iou: float = 0.7
    min_region: int = 10
    levels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a number of clicks is below 1.
        """
        if self.points_per_side < 1 or self.points_per_call < 1:
            raise ValueError("points_per_side and points_per_call must be 1 at least")

    def grid(self) -> Tensor:
        """The clicks (points_per_side ** 2, 2), normalised (x, y), row by row."""
        centre = (torch.arange(self.points_per_side) + 0.5) / self.points_per_side
        return torch.stack(torch.meshgrid(centre, centre, indexing="ij")[::-1], -1).reshape(-1, 2)

    def choose(self, found: PromptedMasks) -> PromptedMasks:
        """Suppresses duplicates and cleans up regions; masks are ordered by quality, the highest first."""
        found = found[nms(found.boxes, found.quality, self.nms_iou)]
        cleaned, changed = [], []
        for i in range(len(found)):
            mask, differs = without_small_regions(found.masks.one(i), self.min_region)
            cleaned.append(mask)
            changed.append(differs)
        if any(changed):
            masks = torch.stack(cleaned)
            found.masks, found.boxes = RunLengthMasks.encode(masks), mask_boxes(masks).to(found.boxes)
            # Masks that did not change come before those that did.
            unchanged = 1.0 - torch.tensor(changed, device=found.quality.device).float()
            found = found[nms(found.boxes, unchanged, self.nms_iou)]
        return found[found.quality.argsort(descending=True, stable=True)]
