"""Encoders, which turn feature maps of the backbone into refined tokens.

Shape letters: B images, S tokens, L levels, D channels, H and W pixels of the padded input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detrex.layers import MLP, DeformableEncoderLayer, EncoderLayer, pyramid_sine_encoding
from detrex.structures import PaddedImages, Pyramid

GROUPS = 32  # in every group normalisation


class DeformableEncoder(nn.Module):
    """Brings several feature maps to one width and encodes them jointly (Deformable DETR, arXiv 2010.04159).

    Args:
        in_channels: channels of the backbone's maps by stride.
        strides: levels of the encoder, finest first, each twice the one before. Levels coarser than the
            backbone's maps are made by 3x3 convolutions of stride 2.
        hidden_dim: D.
        ffn_dim, num_heads, num_points, num_layers, dropout: of the encoder layers.
        position_offset, temperature: see :func:`~detrex.layers.pyramid_sine_encoding`.
        checkpointing: compute layers again in the backward pass instead of keeping what they computed.

    Raises:
        ValueError: if the strides and channels do not fit together.
    """

    layer_type: type[DeformableEncoderLayer] = DeformableEncoderLayer

    def __init__(
        self,
        in_channels: Mapping[int, int],
        strides: Sequence[int] = (8, 16, 32, 64),
        hidden_dim: int = 256,
        ffn_dim: int = 2048,
        num_heads: int = 8,
        num_points: int = 4,
        num_layers: int = 6,
        dropout: float = 0.0,
        position_offset: float = 0.0,
        checkpointing: bool = False,
        temperature: float = 10000.0,
    ):
        super().__init__()
        _check_strides(strides, in_channels)
        check_groups(hidden_dim)
        self.strides = tuple(strides)
        self.coarsest_input = max(in_channels)
        self.position_offset, self.temperature = position_offset, temperature
        self.checkpointing = checkpointing
        self.projections = nn.ModuleList(_projections(in_channels, strides, hidden_dim))
        self.level_embed = nn.Parameter(torch.randn(len(strides), hidden_dim))
        self.layers = nn.ModuleList(
            self.layer_type(hidden_dim, ffn_dim, num_heads, len(strides), num_points, dropout)
            for _ in range(num_layers)
        )

    def forward(self, features: Mapping[int, Tensor], images: PaddedImages | None = None) -> Pyramid:
        """Encodes.

        Args:
            features: backbone maps by stride, (B, C, H / stride, W / stride).
            images: given if their padding is to be masked.

        Returns:
            The tokens (B, S, D) of all levels and their position.
        """
        pyramid = self.flatten(features, images)
        reference = pyramid.on_levels(pyramid.cell_centres())  # (1 or B, S, L or 1, 2)
        for layer in self.layers:
            pyramid = run(layer, pyramid, reference, checkpointing=self.checkpointing and self.training)
        return pyramid

    def flatten(self, features: Mapping[int, Tensor], images: PaddedImages | None = None) -> Pyramid:
        """The tokens (B, S, D) before the first layer, with their position."""
        pyramid = Pyramid.from_maps(self._project(features), images)
        encodings = pyramid_sine_encoding(
            pyramid, pyramid.tokens.shape[-1], self.temperature, self.position_offset
        )
        located = [e + level for e, level in zip(encodings, self.level_embed, strict=True)]  # (S of l, D)
        return pyramid.with_position(torch.cat(located, -2))

    def _project(self, features: Mapping[int, Tensor]) -> list[Tensor]:
        maps: list[Tensor] = []
        for stride, projection in zip(self.strides, self.projections, strict=True):
            # The first extra level comes from the backbone itself, later ones from the level before.
            extra = maps[-1] if stride > 2 * self.coarsest_input else features[self.coarsest_input]
            maps.append(projection(features.get(stride, extra)))  # (B, D, H / stride, W / stride)
        return maps


class PlainEncoder(nn.Module):
    """Tokens of the coarsest feature map attend to one another (DETR, arXiv 2005.12872).

    Args:
        in_channels: channels of the backbone's maps by stride; the coarsest is taken.
        hidden_dim: D.
        ffn_dim, num_heads, num_layers, dropout, prelu: of the encoder layers.
        temperature: of the position encoding.
        scaled_position: every layer scales the position by a function of the tokens (DAB-DETR).
        checkpointing: compute layers again in the backward pass instead of keeping what they computed.
    """

    def __init__(
        self,
        in_channels: Mapping[int, int],
        hidden_dim: int = 256,
        ffn_dim: int = 2048,
        num_heads: int = 8,
        num_layers: int = 6,
        dropout: float = 0.0,
        prelu: bool = False,
        temperature: float = 10000.0,
        scaled_position: bool = False,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.stride = max(in_channels)
        self.temperature, self.checkpointing = temperature, checkpointing
        self.projection = nn.Conv2d(in_channels[self.stride], hidden_dim, 1)
        self.layers = nn.ModuleList(
            EncoderLayer(hidden_dim, ffn_dim, num_heads, dropout, prelu) for _ in range(num_layers)
        )
        self.position_scale = MLP(hidden_dim, hidden_dim, hidden_dim, 2) if scaled_position else None
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Mapping[int, Tensor], images: PaddedImages | None = None) -> Pyramid:
        """Encodes; arguments and result are those of :meth:`DeformableEncoder.forward`, with one level."""
        return self.refine(self.flatten(features, images))

    def flatten(self, features: Mapping[int, Tensor], images: PaddedImages | None = None) -> Pyramid:
        """The tokens (B, S, D) before the first layer, with their position."""
        pyramid = Pyramid.from_maps([self.projection(features[self.stride])], images)
        (position,) = pyramid_sine_encoding(pyramid, pyramid.tokens.shape[-1], self.temperature)
        return pyramid.with_position(position)

    def refine(self, pyramid: Pyramid) -> Pyramid:
        """Runs all layers over tokens (B, S, D) that have a position."""
        position = pyramid.position  # (S, D) or (B, S, D)
        for layer in self.layers:
            scaled = position
            if self.position_scale is not None:
                scaled = position * self.position_scale(pyramid.tokens)  # (B, S, D)
            pyramid = run(layer, pyramid, scaled, checkpointing=self.checkpointing and self.training)
        return pyramid


def run(layer: Callable[..., Any], *arguments: Any, checkpointing: bool) -> Any:
    """Calls a layer; with ``checkpointing``, the backward pass computes it again (arXiv 1604.06174)."""
    if not checkpointing:
        return layer(*arguments)
    return checkpoint(partial(layer, *arguments), use_reentrant=False)


def check_groups(dim: int) -> None:
    """Raises ValueError if group normalisation cannot divide ``dim`` channels."""
    if dim % GROUPS:
        raise ValueError(f"hidden_dim {dim} is not a multiple of {GROUPS}, the groups of its group norms")


def conv_norm(in_dim: int, out_dim: int, size: int, stride: int = 1, bias: bool = True) -> nn.Sequential:
    """A convolution and group normalisation."""
    conv = nn.Conv2d(in_dim, out_dim, size, stride, padding=size // 2, bias=bias)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, out_dim))


def _check_strides(strides: Sequence[int], in_channels: Mapping[int, int]) -> None:
    if any(b != 2 * a for a, b in zip(strides[:-1], strides[1:], strict=True)):
        raise ValueError(f"strides {list(strides)}: each level must have twice the stride of the one before")
    missing = {s for s in strides if s <= max(in_channels)} - set(in_channels)
    if missing:
        raise ValueError(
            f"the backbone gives no map of stride {sorted(missing)}; it has {sorted(in_channels)}"
        )


def _projections(in_channels: Mapping[int, int], strides: Sequence[int], dim: int) -> list[nn.Sequential]:
    coarsest = max(in_channels)
    layers: list[nn.Sequential] = []
    for stride in strides:
        if stride in in_channels:
            layers.append(conv_norm(in_channels[stride], dim, 1))
        else:
            source = in_channels[coarsest] if stride == 2 * coarsest else dim
            layers.append(conv_norm(source, dim, 3, stride=2))
    for layer in layers:
        conv = layer[0]
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        nn.init.xavier_uniform_(conv.weight)
        nn.init.zeros_(conv.bias)
    return layers
