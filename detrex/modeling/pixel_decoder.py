"""The pixel decoder of Mask DINO: a deformable encoder over a pyramid, and an embedding per stride-4 pixel.

Shape letters: B images, S tokens, D channels, H and W pixels of the padded input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers import DeformableEncoderLayer, image_sine_encoding
from detrex.structures import Pyramid

EMBED_STRIDE = 4


class DeformablePixelDecoder(nn.Module):
    """Encodes several levels jointly and fuses the finest with the stride-4 backbone map.

    Args:
        in_channels: channels of the backbone's maps by stride; stride 4 must be among them.
        strides: levels of the encoder, finest first, each twice the one before. Levels beyond the coarsest
            backbone map are made by 3x3 convolutions of stride 2.
        hidden_dim: channels of tokens and pixel embedding's input.
        mask_dim: size of the per-pixel embedding.
        ffn_dim, num_heads, num_points, num_layers, dropout: of the encoder layers.

    Raises:
        ValueError: if the strides and channels do not fit together.
    """

    def __init__(
        self,
        in_channels: Mapping[int, int],
        strides: Sequence[int] = (8, 16, 32, 64),
        hidden_dim: int = 256,
        mask_dim: int = 256,
        ffn_dim: int = 1024,
        num_heads: int = 8,
        num_points: int = 4,
        num_layers: int = 6,
        dropout: float = 0.0,
    ):
        super().__init__()
        _check_strides(strides, in_channels)
        if hidden_dim % 32:
            raise ValueError(
                f"hidden_dim {hidden_dim} is not a multiple of 32, the groups of its group norms"
            )
        self.strides = tuple(strides)
        self.coarsest_input = max(in_channels)
        self.projections = nn.ModuleList(_projections(in_channels, strides, hidden_dim))
        self.level_embed = nn.Parameter(torch.randn(len(strides), hidden_dim))
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(hidden_dim, ffn_dim, num_heads, len(strides), num_points, dropout)
            for _ in range(num_layers)
        )
        self.lateral = _conv_norm(in_channels[EMBED_STRIDE], hidden_dim, 1, bias=False)
        self.fusion = _conv_norm(hidden_dim, hidden_dim, 3, bias=False)
        self.pixel_embed = nn.Conv2d(hidden_dim, mask_dim, 1)

    def forward(self, features: Mapping[int, Tensor]) -> tuple[Pyramid, Tensor]:
        """Encodes.

        Args:
            features: backbone maps by stride, (B, C, H / stride, W / stride).

        Returns:
            The encoded pyramid, and the per-pixel embedding (B, mask_dim, H / 4, W / 4).
        """
        pyramid = Pyramid.from_maps(self._project(features))
        position = self._position(pyramid)
        reference = pyramid.cell_centres()[None]
        for layer in self.layers:
            pyramid = layer(pyramid, position, reference)
        return pyramid, self._embed_pixels(features[EMBED_STRIDE], pyramid.level(0))

    def _project(self, features: Mapping[int, Tensor]) -> list[Tensor]:
        maps = []
        for stride, projection in zip(self.strides, self.projections, strict=True):
            # The first extra level comes from the backbone itself, later ones from the level before.
            extra = maps[-1] if stride > 2 * self.coarsest_input else features[self.coarsest_input]
            maps.append(projection(features.get(stride, extra)))
        return maps

    def _position(self, pyramid: Pyramid) -> Tensor:
        """Position and level of every token: (S, D)."""
        dim, device = pyramid.tokens.shape[-1], pyramid.tokens.device
        encodings = [
            image_sine_encoding(h, w, dim, device) + level
            for (h, w), level in zip(pyramid.shapes, self.level_embed, strict=True)
        ]
        return torch.cat(encodings)

    def _embed_pixels(self, finest_input: Tensor, finest_level: Tensor) -> Tensor:
        lateral = self.lateral(finest_input)
        upsampled = F.interpolate(finest_level, lateral.shape[-2:], mode="bilinear", align_corners=False)
        return self.pixel_embed(self.fusion(lateral + upsampled).relu())


def _check_strides(strides: Sequence[int], in_channels: Mapping[int, int]) -> None:
    if any(b != 2 * a for a, b in zip(strides[:-1], strides[1:], strict=True)):
        raise ValueError(f"strides {list(strides)}: each level must have twice the stride of the one before")
    missing = {EMBED_STRIDE, *(s for s in strides if s <= max(in_channels))} - set(in_channels)
    if missing:
        raise ValueError(
            f"the backbone gives no map of stride {sorted(missing)}; it has {sorted(in_channels)}"
        )


def _projections(in_channels: Mapping[int, int], strides: Sequence[int], dim: int) -> list[nn.Module]:
    coarsest = max(in_channels)
    layers = []
    for stride in strides:
        if stride in in_channels:
            layers.append(_conv_norm(in_channels[stride], dim, 1))
        else:
            source = in_channels[coarsest] if stride == 2 * coarsest else dim
            layers.append(_conv_norm(source, dim, 3, stride=2))
    for layer in layers:
        nn.init.xavier_uniform_(layer[0].weight)
        nn.init.zeros_(layer[0].bias)
    return layers


def _conv_norm(in_dim: int, out_dim: int, size: int, stride: int = 1, bias: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(in_dim, out_dim, size, stride, padding=size // 2, bias=bias)
    return nn.Sequential(conv, nn.GroupNorm(32, out_dim))
