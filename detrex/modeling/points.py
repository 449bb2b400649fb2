"""Points at which masks are compared instead of as a whole (PointRend, arXiv 1912.08193).

Points are normalised (x, y) over the padded input. Shape letters: B images, M masks, K points, H and W cells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detrex.layers import uncertain_points


class RandomPoints:
    """Uniform points for matching; for losses, points with a preference for uncertain ones.

    Args:
        num_points: K.
        oversample: candidates per kept point.
        uncertain: fraction of the points that are the most uncertain candidates; the rest is uniform.

    Attributes:
        num_candidates: number of points of a mask among which uncertain ones are sought.
    """

    def __init__(self, num_points: int = 12544, oversample: float = 3.0, uncertain: float = 0.75):
        self.num_points, self.uncertain = num_points, uncertain
        self.num_candidates = int(oversample * num_points)

    def shared(self, batch: int, device: torch.device) -> Tensor:
        """Points (B, K, 2) that all masks of an image share."""
        return torch.rand(batch, self.num_points, 2, device=device)

    def per_mask(self, logits: Tensor) -> Tensor:
        """Points (M, K, 2) for mask logits (M, H, W); a mask is uncertain where its logit is near 0."""
        keep = int(self.uncertain * self.num_points)
        return uncertain_points(logits, self.num_candidates, keep, self.num_points)


class GridPoints:
    """Centres of a regular grid, for computations that must repeat exactly.

    Args:
        num_points: K, a square number.

    Raises:
        ValueError: if it is not a square number.
    """

    def __init__(self, num_points: int = 12544):
        self.side = math.isqrt(num_points)
        if self.side**2 != num_points:
            raise ValueError(f"num_points {num_points} is not a square number")
        self.num_points, self.num_candidates = num_points, 0

    def shared(self, batch: int, device: torch.device) -> Tensor:
        """The same points for each image, (B, K, 2), row by row."""
        centre = (torch.arange(self.side, device=device, dtype=torch.float32) + 0.5) / self.side
        grid = torch.stack(torch.meshgrid(centre, centre, indexing="ij")[::-1], -1)
        return grid.reshape(1, -1, 2).expand(batch, -1, -1)

    def per_mask(self, logits: Tensor) -> Tensor:
        """The same points (M, K, 2) for every mask."""
        return self.shared(len(logits), logits.device)
