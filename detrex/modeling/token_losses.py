"""Losses of the scores that an encoder gave its tokens.

Shape letters: B images, S tokens, N objects of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import box_convert, sigmoid_focal_loss

from detrex.structures import BatchTargets, PaddedImages, Pyramid


class TokenLoss(Protocol):
    """Losses of the scores that an encoder gave its tokens, such as whether they belong to an object."""

    def __call__(self, memory: Pyramid, images: PaddedImages, targets: BatchTargets) -> dict[str, Tensor]:
        """Weighted losses by name.

        Args:
            memory: encoded tokens, with ``scores``.
            images: the batch.
            targets: its ground truth.
        """
        ...


class ForegroundLoss:
    """Teaches tokens whether they lie in a box whose size suits their level (FCOS, arXiv 1904.01355).

    Args:
        strides: of the levels, finest first, in pixels.
        weight: of the loss ``select_loss``.
    """

    def __init__(self, strides: Sequence[int] = (8, 16, 32, 64), weight: float = 1.5):
        self.strides, self.weight = tuple(strides), weight
        # The largest distance to a side of the box doubles from level to level; the last level has no limit.
        self.bounds = [-1.0, *(64.0 * 2**i for i in range(len(strides) - 1)), 999999.0]

    def __call__(self, memory: Pyramid, images: PaddedImages, targets: BatchTargets) -> dict[str, Tensor]:
        """See :class:`~detrex.modeling.TokenLoss`."""
        assert memory.scores is not None
        levels = zip(memory.shapes, self.strides, pairwise(self.bounds), strict=True)
        places = [self._places(*level, memory.scores.device) for level in levels]
        points, bounds = (torch.cat(values) for values in zip(*places, strict=True))  # (S, 2) each
        objects = box_convert(targets.boxes, "cxcywh", "xyxy").split(targets.counts)
        losses = []
        for logits, (height, width), boxes in zip(memory.scores.float(), images.sizes, objects, strict=True):
            corners = boxes * boxes.new_tensor([width, height, width, height])  # (N, 4)
            # (S, N, 4): to the left, top, right and bottom side.
            distances = torch.cat([points[:, None] - corners[:, :2], corners[:, 2:] - points[:, None]], -1)
            largest = distances.amax(-1)  # (S, N)
            fits = (distances.amin(-1) > 0) & (largest > bounds[:, :1]) & (largest <= bounds[:, 1:])  # (S, N)
            wanted = fits.any(1).float()  # (S,)
            losses.append(sigmoid_focal_loss(logits, wanted, reduction="sum") / wanted.sum().clamp(min=1))
        return {"select_loss": self.weight * torch.stack(losses).mean()}

    @staticmethod
    def _places(
        shape: tuple[int, int], stride: int, bounds: tuple[float, float], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Positions (x, y) in pixels (S, 2) of a level's tokens, and bounds (S, 2) of their distances."""
        y, x = (torch.arange(n, device=device) * stride + stride // 2 for n in shape)  # (rows,), (columns,)
        points = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)  # (S, 2)
        return points, torch.tensor(bounds, device=device).expand(len(points), 2)
