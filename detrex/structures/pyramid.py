"""A feature pyramid flattened once into tokens.

Shape letters: B images, L levels, S tokens of all levels, D channels, H and W cells of a level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pyramid:
    """Tokens of several feature maps, finest level first, row-major within a level.

    Attributes:
        tokens: (B, S, D).
        shapes: (height, width) of every level, Python ints, so that no operation needs a device sync.
    """

    tokens: Tensor
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def from_maps(cls, maps: list[Tensor]) -> Pyramid:
        """From (B, D, H, W) maps, finest first."""
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        return cls(tokens, tuple((m.shape[2], m.shape[3]) for m in maps))

    def with_tokens(self, tokens: Tensor) -> Pyramid:
        """The same levels holding other tokens (B, S, D)."""
        return replace(self, tokens=tokens)

    @cached_property
    def sizes(self) -> list[int]:
        """Number of tokens of every level."""
        return [h * w for h, w in self.shapes]

    def level(self, index: int) -> Tensor:
        """Level ``index`` as a (B, D, H, W) map."""
        height, width = self.shapes[index]
        return self.tokens.split(self.sizes, 1)[index].transpose(1, 2).unflatten(2, (height, width))

    def maps(self) -> list[Tensor]:
        """Every level as a (B, D, H, W) map."""
        return [self.level(i) for i in range(len(self.shapes))]

    def cell_centres(self) -> Tensor:
        """Centre of every token's cell: (S, 2), normalised (x, y) in (0, 1), at least float32."""
        return torch.cat([self._centres(h, w) for h, w in self.shapes])

    def _centres(self, height: int, width: int) -> Tensor:
        # Half precision would tell only 256 positions apart.
        like = dict(device=self.tokens.device, dtype=torch.promote_types(self.tokens.dtype, torch.float32))
        y = (torch.arange(height, **like) + 0.5) / height
        x = (torch.arange(width, **like) + 0.5) / width
        return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)
