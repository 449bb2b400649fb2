"""A feature pyramid flattened once into tokens.

Shape letters: B images, L levels, S tokens of all levels, Q queries, D channels, H and W cells of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from detrex.structures.images import PaddedImages

Shapes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Pyramid:
    """Tokens of several feature maps, finest level first, row-major within a level.

    If padding is masked, coordinates are relative to each image without padding, else to the padded input.

    Attributes:
        tokens: (B, S, D).
        shapes: (height, width) of every level, Python ints, so that no operation needs a device sync.
        valid: for every image the (height, width) of every level without padding, or None if padding counts
            as image.
        position: (S, D) or (B, S, D) encoding of the tokens' positions, or None.
        scores: (B, N) scores that the encoder gave to tokens, with gradient; None for most encoders.
    """

    tokens: Tensor
    shapes: Shapes
    valid: tuple[Shapes, ...] | None = None
    position: Tensor | None = None
    scores: Tensor | None = None

    @classmethod
    def from_maps(cls, maps: list[Tensor], images: PaddedImages | None = None) -> Pyramid:
        """Makes a pyramid of maps (B, D, H, W), finest first; give ``images`` if padding is to be masked."""
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        shapes = tuple((m.shape[2], m.shape[3]) for m in maps)
        valid = None
        if images is not None:
            valid = tuple(
                tuple(_valid_cells(shape, images.padded_size, size) for shape in shapes)
                for size in images.sizes
            )
        return cls(tokens, shapes, valid)

    def with_tokens(self, tokens: Tensor) -> Pyramid:
        """A copy with other tokens (B, S, D)."""
        return self._replace(tokens=tokens)

    def with_position(self, position: Tensor) -> Pyramid:
        """A copy with an encoding of positions, (S, D) or (B, S, D)."""
        return self._replace(position=position)

    def with_scores(self, scores: Tensor) -> Pyramid:
        """A copy with scores of tokens, (B, N)."""
        return self._replace(scores=scores)

    def repeated(self, times: int) -> Pyramid:
        """The batch repeated ``times`` times, without scores."""
        position = self.position
        if position is not None and position.ndim == 3:
            position = position.repeat(times, 1, 1)
        valid = None if self.valid is None else self.valid * times
        return Pyramid(self.tokens.repeat(times, 1, 1), self.shapes, valid, position)

    def of_image(self, index: int) -> Pyramid:
        """One image of the batch, as a batch of one; without scores."""
        return self.of_images([index])

    def of_images(self, index: Sequence[int]) -> Pyramid:
        """Some images of the batch; without scores."""
        chosen, position = torch.tensor(index, device=self.tokens.device), self.position
        if position is not None and position.ndim == 3:
            position = position[chosen]
        valid = None if self.valid is None else tuple(self.valid[i] for i in index)
        return Pyramid(self.tokens[chosen], self.shapes, valid, position)

    @property
    def located_tokens(self) -> Tensor:
        """Tokens with the encoding of their position added, (B, S, D).

        Raises:
            ValueError: the pyramid has no encoding; see :meth:`with_position`.
        """
        if self.position is None:
            raise ValueError("these tokens have no position")
        return self.tokens + self.position

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

    @cached_property
    def cells(self) -> Tensor:
        """(L, 2) number of cells in x and y; at least float32."""
        numbers = torch.tensor(self.shapes, dtype=self._dtype).flip(-1)
        return numbers.to(self.tokens.device, non_blocking=True)

    @cached_property
    def valid_sizes(self) -> Tensor | None:
        """(B, L, 2) number of cells without padding in x and y, or None; at least float32."""
        if self.valid is None:
            return None
        numbers = torch.tensor(self.valid, dtype=self._dtype).flip(-1)
        return numbers.to(self.tokens.device, non_blocking=True)

    @cached_property
    def padding(self) -> Tensor | None:
        """(B, S) bool, True for tokens of masked padding; None where padding counts as image."""
        if self.valid_sizes is None:
            return None
        levels = []
        for (height, width), valid in zip(self.shapes, self.valid_sizes.unbind(1), strict=True):
            x, y = (torch.arange(n, device=self.tokens.device) for n in (width, height))
            outside = (x >= valid[:, :1])[:, None] | (y >= valid[:, 1:])[:, :, None]  # (B, H, W)
            levels.append(outside.flatten(1))
        return torch.cat(levels, 1)

    def cell_centres(self) -> Tensor:
        """Centre of every token's cell, normalised (x, y), at least float32: (1 or B, S, 2).

        Centres in masked padding lie beyond 1.
        """
        centres = torch.cat([self._centres(h, w) for h, w in self.shapes])[None]
        if self._shares is None:
            return centres
        levels = zip(self._shares.unbind(1), self.sizes, strict=True)
        return centres / torch.cat([share[:, None].expand(-1, size, -1) for share, size in levels], 1)

    def on_levels(self, reference: Tensor) -> Tensor:
        """Converts normalised points or boxes to fractions of every level, padding included.

        Args:
            reference: (B or 1, Q, 2 or 4) normalised (x, y) or cxcywh.

        Returns:
            (B or 1, Q, L or 1, 2 or 4).
        """
        reference = reference[:, :, None]
        if self._shares is None:
            return reference
        return reference * self._shares[:, None].repeat(1, 1, 1, reference.shape[-1] // 2)

    @cached_property
    def _shares(self) -> Tensor | None:
        """(B, L, 2) share of every level that is not padding, in x and y; None if padding counts as image."""
        return None if self.valid_sizes is None else self.valid_sizes / self.cells

    def _replace(self, **changes: Any) -> Pyramid:
        other = replace(self, **changes)
        for name in ("cells", "valid_sizes", "padding", "_shares"):
            if name in vars(self):  # computed already, and depends on the levels alone
                vars(other)[name] = vars(self)[name]
        return other

    @property
    def _dtype(self) -> torch.dtype:
        # Half precision would tell only 256 positions apart.
        return torch.promote_types(self.tokens.dtype, torch.float32)

    def _centres(self, height: int, width: int) -> Tensor:
        like: dict[str, Any] = dict(device=self.tokens.device, dtype=self._dtype)
        y = (torch.arange(height, **like) + 0.5) / height
        x = (torch.arange(width, **like) + 0.5) / width
        return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)


def _valid_cells(shape: tuple[int, int], padded: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """How many rows and columns begin within the image, whose ``size`` is in pixels like ``padded``."""
    # With integers only: symbols stand for sizes that are not known while a model is exported.
    height, width = (
        cast(int, torch.sym_min(n, (side * n + whole - 1) // whole))
        for n, whole, side in zip(shape, padded, size, strict=True)
    )
    return height, width
