"""Suppression of duplicates (NMS) as one operator, ``torch.ops.detrex.not_suppressed``.

As one operator, it keeps batches and groups apart until an export: ONNX has an operator that takes both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms


@torch.library.custom_op("detrex::not_suppressed", mutates_args=())
def not_suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Marks boxes that overlap no better box of their image and group by more than ``iou``: (B, N) bool.

    The operator has no gradients.

    Args:
        boxes: (B, N, 4) xyxy.
        scores: (B, N).
        groups: (B, N) int64, numbers from 0.
        iou: intersection over union.
    """
    # In float64, because torchvision also moves groups apart if there are few boxes.
    together = boxes.flatten(0, 1).double()
    kept = batched_nms(together, scores.flatten().double(), _apart(groups), iou)
    return _marked(kept, groups)


@not_suppressed.register_fake
def _fake(_boxes: Tensor, _scores: Tensor, groups: Tensor, _iou: float) -> Tensor:
    return torch.empty_like(groups, dtype=torch.bool)


def not_suppressed_in_one_space(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Like :func:`not_suppressed`, with torchvision's operator, for programs that run without this package.

    Groups are moved so far apart that they do not overlap, in float64, which is precise enough for that.
    """
    together = boxes.flatten(0, 1).double()
    moved = together + _apart(groups)[:, None] * (together.amax() - together.amin() + 1)
    return _marked(nms(moved, scores.flatten().double(), iou), groups)


def _apart(groups: Tensor) -> Tensor:
    """(B * N,) numbers of groups that differ between images."""
    images = torch.arange(groups.shape[0], device=groups.device)[:, None]
    return (images * (groups.amax() + 1) + groups).flatten()


def _marked(kept: Tensor, groups: Tensor) -> Tensor:
    chosen = torch.zeros_like(groups, dtype=torch.bool).flatten()
    return chosen.index_fill(0, kept, True).view_as(groups)
