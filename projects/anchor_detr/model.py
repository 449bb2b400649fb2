"""Anchor DETR (arXiv 2109.07107): anchor points with several patterns each, and row-column attention.

Shape letters: Q queries, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from detrex.layers import (
    QueryPosition,
    RowColumnDecoderLayer,
    RowColumnEncoderLayer,
    at_least_single,
    box_sine_encoding,
    sine_encoding,
)
from detrex.modeling import Detector, InitialQueries, PredictionHeads, QueryGroup
from detrex.modeling.decoder import init_xavier
from detrex.modeling.encoder import conv_norm, run
from detrex.modeling.queries import QueryState
from detrex.structures import BatchTargets, PaddedImages, Pyramid


class AnchorDetector(Detector):
    """A detector whose encoder encodes the positions of tokens like the decoder those of anchor points."""

    def encode(self, features: Mapping[int, Tensor], images: PaddedImages | None) -> Pyramid:
        """See :meth:`~detrex.modeling.Detector.encode`."""
        return self.encoder(features, images, self.decoder.position.along_axes)


class PointPosition(nn.Module):
    """Encodes anchor points: in two dimensions for self-attention, along each axis for the memory.

    Args:
        hidden_dim: D.
    """

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.hidden_dim, size = hidden_dim, (hidden_dim, hidden_dim)
        self.plane, self.axis = (
            nn.Sequential(nn.Linear(*size), nn.ReLU(), nn.Linear(*size)) for _ in range(2)
        )

    def forward(self, queries: QueryState) -> QueryPosition:
        points = queries.place()  # (B, Q, 2)
        encoding = self.plane(box_sine_encoding(points, self.hidden_dim // 2))
        return QueryPosition(encoding, spatial=self.along_axes(points))

    def along_axes(self, points: Tensor) -> Tensor:
        """Encodes x by itself, then y by itself: (..., 2) in [0, 1] to (..., 2 * D)."""
        return self.axis(sine_encoding(points * (2 * math.pi), self.hidden_dim)).flatten(-2)


class RowColumnEncoder(nn.Module):
    """Tokens of the coarsest feature map attend to one another by rows and columns.

    Args:
        in_channels, hidden_dim, ffn_dim, num_heads, num_layers, dropout, checkpointing: see
            :class:`~detrex.modeling.PlainEncoder`.
    """

    def __init__(
        self,
        in_channels: Mapping[int, int],
        hidden_dim: int = 256,
        ffn_dim: int = 1024,
        num_heads: int = 8,
        num_layers: int = 6,
        dropout: float = 0.0,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.stride, self.checkpointing = max(in_channels), checkpointing
        self.projection = conv_norm(in_channels[self.stride], hidden_dim, 1)
        self.layers = nn.ModuleList(
            RowColumnEncoderLayer(hidden_dim, ffn_dim, num_heads, dropout) for _ in range(num_layers)
        )
        init_xavier(self)

    def forward(
        self,
        features: Mapping[int, Tensor],
        images: PaddedImages | None,
        along_axes: Callable[[Tensor], Tensor],
    ) -> Pyramid:
        """Encodes the map; see :class:`~detrex.modeling.PlainEncoder`."""
        pyramid = Pyramid.from_maps([self.projection(features[self.stride])], images)
        # Cells in padding get the position of the last cell before it.
        extent = pyramid.cells if pyramid.valid_sizes is None else pyramid.valid_sizes[:, 0]  # (B or 1, 2)
        last = (extent - 0.5) / extent
        places = pyramid.cell_centres().minimum(last[:, None])
        pyramid = pyramid.with_position(along_axes(places))
        for layer in self.layers:
            pyramid = run(layer, pyramid, checkpointing=self.checkpointing and self.training)
        return pyramid


class RowColumnDecoderLayers(nn.ModuleList):
    """Layers whose queries attend to rows and columns of the memory.

    Args:
        hidden_dim, ffn_dim, num_heads, num_layers, dropout: as the encoder's.
    """

    def __init__(
        self,
        hidden_dim: int = 256,
        ffn_dim: int = 1024,
        num_heads: int = 8,
        num_layers: int = 6,
        dropout: float = 0.0,
    ):
        super().__init__(
            RowColumnDecoderLayer(hidden_dim, ffn_dim, num_heads, dropout) for _ in range(num_layers)
        )
        init_xavier(self)


class PatternPoints(nn.Module):
    """Every learned anchor point with every learned pattern; queries of the first pattern come first.

    Args:
        num_queries: anchor points.
        num_patterns: patterns.
        hidden_dim: D.
    """

    def __init__(self, num_queries: int = 300, num_patterns: int = 3, hidden_dim: int = 256):
        super().__init__()
        self.point, self.pattern = nn.Embedding(num_queries, 2), nn.Embedding(num_patterns, hidden_dim)
        nn.init.uniform_(self.point.weight)

    def forward(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None,  # noqa: ARG002
        heads: PredictionHeads,  # noqa: ARG002
        targets: BatchTargets | None = None,  # noqa: ARG002
    ) -> InitialQueries:
        """See :class:`~detrex.modeling.QuerySource`. Points are not kept within [0, 1]."""
        shape = (memory.tokens.shape[0], -1, -1)
        content = self.pattern.weight.repeat_interleave(self.point.num_embeddings, 0)  # (Q, D)
        reference = at_least_single(self.point.weight).repeat(self.pattern.num_embeddings, 1)  # (Q, 2)
        return InitialQueries([QueryGroup(content.expand(shape), reference.expand(shape))])
