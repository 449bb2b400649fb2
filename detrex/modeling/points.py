"""Where mask losses and matching costs look: points instead of whole masks (PointRend, arXiv 1912.08193).

Points are normalised (x, y) over the padded input. Shape letters: B images, M masks, K points, H and W cells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detrex.layers import sample_maps


class RandomPoints:
    """Uniform points for matching; points with preference to uncertain ones for losses.

    Args:
        num_points: K.
        oversample: candidates per kept point.
        uncertain: fraction of the points that are the most uncertain candidates; the rest is uniform.
    """

    def __init__(self, num_points: int = 12544, oversample: float = 3.0, uncertain: float = 0.75):
        self.num_points, self.oversample, self.uncertain = num_points, oversample, uncertain

    def shared(self, batch: int, device: torch.device) -> Tensor:
        """(B, K, 2): points that all masks of an image share."""
        return torch.rand(batch, self.num_points, 2, device=device)

    @torch.no_grad()
    def per_mask(self, logits: Tensor) -> Tensor:
        """(M, K, 2) for mask logits (M, H, W): a mask is uncertain where its logit is near 0."""
        masks = len(logits)
        keep = int(self.uncertain * self.num_points)
        candidates = torch.rand(masks, int(self.oversample * self.num_points), 2, device=logits.device)
        certainty = sample_maps(logits[:, None], candidates).squeeze(1).abs()
        best = certainty.topk(keep, dim=1, largest=False).indices
        chosen = candidates.gather(1, best[..., None].expand(-1, -1, 2))
        rest = torch.rand(masks, self.num_points - keep, 2, device=logits.device)
        return torch.cat([chosen, rest], 1)


class GridPoints:
    """Centres of a regular grid, for computations that must repeat exactly.

    Args:
        num_points: K, a square number.

    Raises:
        ValueError: if it is not.
    """

    def __init__(self, num_points: int = 12544):
        self.side = math.isqrt(num_points)
        if self.side**2 != num_points:
            raise ValueError(f"num_points {num_points} is not a square number")

    def shared(self, batch: int, device: torch.device) -> Tensor:
        """(B, K, 2), row-major."""
        centre = (torch.arange(self.side, device=device, dtype=torch.float32) + 0.5) / self.side
        grid = torch.stack(torch.meshgrid(centre, centre, indexing="ij")[::-1], -1)
        return grid.reshape(1, -1, 2).expand(batch, -1, -1)

    def per_mask(self, logits: Tensor) -> Tensor:
        """(M, K, 2), the same for every mask."""
        return self.shared(len(logits), logits.device)
