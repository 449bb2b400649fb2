"""The per-pixel embedding, which turns mask embeddings of queries into masks.

Shape letters: B images, D channels, H and W pixels of the padded input.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from detrex.modeling.encoder import check_groups, conv_norm
from detrex.structures import Pyramid

EMBED_STRIDE = 4


class PixelHead(nn.Module):
    """Fuses the finest encoded level with the stride-4 backbone map (Mask DINO, arXiv 2206.02777).

    Args:
        in_channels: channels of the backbone's maps by stride; stride 4 must be among them.
        hidden_dim: D of the encoder.
        mask_dim: size of the embedding.

    Raises:
        ValueError: if the backbone has no map of stride 4.
    """

    def __init__(self, in_channels: Mapping[int, int], hidden_dim: int = 256, mask_dim: int = 256):
        super().__init__()
        check_groups(hidden_dim)
        if EMBED_STRIDE not in in_channels:
            raise ValueError(
                f"masks need a backbone map of stride {EMBED_STRIDE}; it has {sorted(in_channels)}"
            )
        self.lateral = conv_norm(in_channels[EMBED_STRIDE], hidden_dim, 1, bias=False)
        self.fusion = conv_norm(hidden_dim, hidden_dim, 3, bias=False)
        self.pixel_embed = nn.Conv2d(hidden_dim, mask_dim, 1)

    def forward(self, features: Mapping[int, Tensor], memory: Pyramid) -> Tensor:
        """The embedding (B, mask_dim, H / 4, W / 4) from the backbone's maps by stride and encoded tokens."""
        lateral = self.lateral(features[EMBED_STRIDE])  # (B, D, H / 4, W / 4)
        upsampled = F.interpolate(memory.level(0), lateral.shape[-2:], mode="bilinear", align_corners=False)
        return self.pixel_embed(self.fusion(lateral + upsampled).relu())
