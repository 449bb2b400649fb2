"""Encodings that tell a decoder layer where its queries are.

Shape letters: B images, Q queries, D channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from detrex.layers import MLP, QueryPosition, box_sine_encoding, sine_encoding
from detrex.structures import Pyramid


@dataclass
class QueryState:
    """Queries before a decoder layer.

    Attributes:
        layer: number of the layer, from 0.
        content: (B, Q, D).
        reference: (B, Q, 2 or 4) normalised (x, y) or cxcywh, or None.
        learned: (B, Q, D) the queries' learned position, or None.
        memory: the tokens that the queries attend to.
    """

    layer: int
    content: Tensor
    reference: Tensor | None
    learned: Tensor | None
    memory: Pyramid

    def place(self) -> Tensor:
        """The reference.

        Raises:
            ValueError: the queries have no reference.
        """
        if self.reference is None:
            raise ValueError(
                "these queries have no place: model.decoder.position must be FixedPosition with this "
                "model.decoder.query_init"
            )
        return self.reference

    def learned_position(self) -> Tensor:
        """The learned position.

        Raises:
            ValueError: the queries have no learned position.
        """
        if self.learned is None:
            raise ValueError(
                "these queries start from boxes and have no learned position: model.decoder.position must "
                "be BoxPosition or AnchorPosition with this model.decoder.query_init"
            )
        return self.learned


class QueryPositionEncoder(Protocol):
    """Tells a decoder layer where its queries are."""

    def __call__(self, queries: QueryState) -> QueryPosition:
        """The position of the queries before a layer."""
        ...


class FixedPosition(nn.Module):
    """The queries' learned position, the same for all layers (DETR, Deformable DETR)."""

    def forward(self, queries: QueryState) -> QueryPosition:
        reference = queries.reference
        on_levels = None if reference is None else queries.memory.on_levels(reference)
        return QueryPosition(queries.learned_position(), on_levels)


class BoxPosition(nn.Module):
    """An MLP of the sine encoding of reference boxes (DINO, Mask DINO).

    Args:
        hidden_dim: D.
    """

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.encoder = MLP(2 * hidden_dim, hidden_dim, hidden_dim, 2)

    def forward(self, queries: QueryState) -> QueryPosition:
        on_levels = queries.memory.on_levels(queries.place())  # (B, Q, L or 1, 4)
        # Published models encode boxes relative to the finest level.
        encoding = self.encoder(box_sine_encoding(on_levels[:, :, 0], self.hidden_dim // 2))  # (B, Q, D)
        return QueryPosition(encoding, on_levels)


class SinePosition(nn.Module):
    """The plain sine encoding of reference boxes: cx, cy, w, h (MOTRv2, arXiv 2211.09791; CO-MOT).

    Args:
        hidden_dim: D.
    """

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.hidden_dim = hidden_dim

    def forward(self, queries: QueryState) -> QueryPosition:
        place = queries.place()
        return QueryPosition(self.encode(place), queries.memory.on_levels(place))

    def encode(self, boxes: Tensor) -> Tensor:
        """Encodes normalised cxcywh boxes: (..., 4) to (..., D)."""
        return sine_encoding(boxes * (2 * math.pi), self.hidden_dim // 4).flatten(-2)


class ScaledBoxPosition(BoxPosition):
    """The position of boxes, scaled by the content from the second layer on (DAB-Deformable-DETR).

    Args:
        hidden_dim: D.
    """

    def __init__(self, hidden_dim: int):
        super().__init__(hidden_dim)
        self.scale = MLP(hidden_dim, hidden_dim, hidden_dim, 2)

    def forward(self, queries: QueryState) -> QueryPosition:
        position = super().forward(queries)
        if queries.layer > 0:  # the content of the first layer says nothing yet
            position.encoding = position.encoding * self.scale(queries.content)
        return position


class ConditionalPosition(nn.Module):
    """A learned position, and the sine encoding of a point scaled by the content (arXiv 2108.06152).

    Args:
        hidden_dim: D.
    """

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.scale = MLP(hidden_dim, hidden_dim, hidden_dim, 2)

    def forward(self, queries: QueryState) -> QueryPosition:
        spatial = box_sine_encoding(queries.place(), self.hidden_dim // 2)  # (B, Q, D)
        if queries.layer > 0:  # the content of the first layer says nothing yet
            spatial = spatial * self.scale(queries.content)
        return QueryPosition(queries.learned_position(), spatial=spatial)


class AnchorPosition(nn.Module):
    """Position and spatial query from an anchor box; its size scales the latter (DAB-DETR, arXiv 2201.12329).

    Args:
        hidden_dim: D.
    """

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.encoder = MLP(2 * hidden_dim, hidden_dim, hidden_dim, 2)
        self.scale = MLP(hidden_dim, hidden_dim, hidden_dim, 2)
        self.size = MLP(hidden_dim, hidden_dim, 2, 2)

    def forward(self, queries: QueryState) -> QueryPosition:
        encoded = box_sine_encoding(queries.place(), self.hidden_dim // 2)  # (B, Q, 2 * D)
        spatial = encoded[..., : self.hidden_dim]  # (B, Q, D): y and x
        if queries.layer > 0:
            spatial = spatial * self.scale(queries.content)
        # The wider an anchor, the less its x counts; the encoding has y first.
        stretch = (self.size(queries.content).sigmoid() / queries.place()[..., 2:]).flip(-1)
        stretch = stretch.repeat_interleave(self.hidden_dim // 2, -1)
        return QueryPosition(self.encoder(encoded), spatial=spatial * stretch)
