"""Removes small holes and islands of masks, and chooses which masks of a picture to keep.

Shape letters: N masks, H and W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.ops import masks_to_boxes, nms

_NEIGHBOURS = np.ones((3, 3))  # including diagonal neighbours


def without_small_regions(mask: Tensor, min_area: int) -> tuple[Tensor, bool]:
    """Fills holes of fewer than ``min_area`` pixels, then removes islands of fewer pixels.

    If all islands are small, the largest stays.

    Args:
        mask: (H, W) bool.
        min_area: in pixels.

    Returns:
        The mask, and whether it changed.
    """
    found, filled = _without(mask.cpu().numpy(), min_area, holes=True)
    found, taken = _without(found, min_area, holes=False)
    return torch.from_numpy(found).to(mask.device), filled or taken


def _without(mask: np.ndarray, min_area: int, holes: bool) -> tuple[np.ndarray, bool]:
    regions, count = ndimage.label(mask != holes, structure=_NEIGHBOURS)
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    small = areas < min_area
    if not small.any():
        return mask, False
    if holes:
        return mask | np.append(False, small)[regions], True
    kept = ~small if not small.all() else np.arange(count) == areas.argmax()
    return np.append(False, kept)[regions], True


def stability(logits: Tensor, offset: float = 1.0) -> Tensor:
    """Stability (N,) of masks: the area at logit ``offset`` divided by the area at logit ``-offset``.

    Args:
        logits: (N, H, W).
        offset: distance of the two thresholds from 0.
    """
    inner = (logits > offset).flatten(1).sum(1)  # (N,)
    outer = (logits > -offset).flatten(1).sum(1)  # (N,)
    return inner / outer.clamp(min=1)


def suppressed(masks: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Indices of the masks that non-maximum suppression of their boxes keeps, best first.

    Args:
        masks: (N, H, W) bool.
        scores: (N,).
        iou: boxes that overlap a better one by more than this are removed.
    """
    return nms(mask_boxes(masks), scores, iou)


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes (N, 4) xyxy from the first to the last pixel of masks; 0 for a mask without pixels."""
    boxes = torch.zeros(len(masks), 4, device=masks.device)
    visible = masks.flatten(1).any(1)  # (N,)
    if bool(visible.any()):
        boxes[visible] = masks_to_boxes(masks[visible]).to(boxes)
    return boxes


def mask_iou(mask: Tensor, others: Tensor) -> Tensor:
    """IoU (N,) of a mask (H, W) with others (N, H, W), bool."""
    inside = (mask & others).flatten(1).sum(1)
    return inside / (mask | others).flatten(1).sum(1).clamp(min=1)
