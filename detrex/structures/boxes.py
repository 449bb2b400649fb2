"""Box geometry that torchvision does not have; conversions are :func:`torchvision.ops.box_convert`.

Shape letters: B images, N and M boxes, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_area

# Added to the denominators of IoU and GIoU in the published Mask DINO. Trained weights are not sensitive to
# it, but without it degenerate boxes would divide by zero.
EPS = 1e-6


def pairwise_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (arXiv 1902.09630) of every box of ``a`` with every box of ``b``.

    Args:
        a: (..., N, 4) xyxy, any unit.
        b: (..., M, 4) xyxy, the same unit.

    Returns:
        (..., N, M) in [-1, 1].
    """
    return _giou(a.unsqueeze(-2), b.unsqueeze(-3))


def aligned_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of box ``i`` of ``a`` with box ``i`` of ``b``: (..., 4) and (..., 4) xyxy to (...)."""
    return _giou(a, b)


def aligned_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of box ``i`` of ``a`` with box ``i`` of ``b``: (..., 4) and (..., 4) xyxy to (...) in [0, 1]."""
    return _iou(a, b)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box of ``a`` with every box of ``b``: (..., N, 4) and (..., M, 4) xyxy to (..., N, M)."""
    return _iou(a.unsqueeze(-2), b.unsqueeze(-3))


def _iou(a: Tensor, b: Tensor) -> Tensor:
    intersection, union = _overlap(a, b)
    return intersection / (union + EPS)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    intersection, union = _overlap(a, b)
    hull = _extent(torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]))
    return intersection / (union + EPS) - (hull - union) / (hull + EPS)


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and union."""
    intersection = _extent(torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]))
    return intersection, _area(a) + _area(b) - intersection


def _area(boxes: Tensor) -> Tensor:
    return box_area(boxes.reshape(-1, 4)).reshape(boxes.shape[:-1])


def _extent(size: Tensor) -> Tensor:
    return size.clamp(min=0).prod(-1)


def boxes_from_masks(masks: Tensor, *, inclusive: bool) -> Tensor:
    """Tight boxes around boolean masks, as absolute xyxy in pixels.

    Args:
        masks: (..., H, W) bool.
        inclusive: whether the far edges are the index of the last pixel (``True``) or one past it.

    Returns:
        (..., 4) float32. The box of an empty mask has no size: it lies at (0, 0) if not ``inclusive``;
        otherwise at (W, H), one past the last pixel. Published weights were trained with queries that start
        from these boxes, because early in training many proposals have empty masks.
    """
    height, width = masks.shape[-2:]
    rows, columns = masks.any(-1), masks.any(-2)
    x0, x1 = _first_last(columns, width)
    y0, y1 = _first_last(rows, height)
    boxes = torch.stack([x0, y0, x1, y1], -1).float()
    empty = ~rows.any(-1, keepdim=True)
    if inclusive:
        return torch.where(empty, boxes.new_tensor([width, height, width, height]), boxes)
    return (boxes + boxes.new_tensor([0, 0, 1, 1])).masked_fill(empty, 0)


def _first_last(occupied: Tensor, size: int) -> tuple[Tensor, Tensor]:
    index = torch.arange(size, device=occupied.device)
    first = index.masked_fill(~occupied, size).amin(-1) if size else index.new_zeros(occupied.shape[:-1])
    last = index.masked_fill(~occupied, 0).amax(-1) if size else index.new_zeros(occupied.shape[:-1])
    return first, last
