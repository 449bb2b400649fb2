"""The per-pixel embedding: where it comes from and how fine it is."""

import pytest
import torch
import torch.nn.functional as F

from detrex.modeling import PixelHead
from detrex.structures import Pyramid

CHANNELS = {4: 6, 8: 10, 16: 12}


def memory(*strides, height=64, width=96):
    return Pyramid.from_maps([torch.randn(2, 32, -(-height // s), -(-width // s)) for s in strides])


@pytest.mark.parametrize("strides", [(8, 16), (4, 8, 16), (16, 32), (8, 16, 32, 64)])
def test_the_embedding_is_of_stride_4(strides):
    head = PixelHead(CHANNELS, 32, mask_dim=12)
    assert head({4: torch.randn(2, 6, 16, 24)}, memory(*strides)).shape == (2, 12, 16, 24)


def test_it_fuses_the_finest_map_with_the_finest_level():
    head, tokens = PixelHead(CHANNELS, 32, mask_dim=12), memory(8, 16)
    fine = torch.randn(2, 6, 16, 24)
    lateral = F.group_norm(F.conv2d(fine, head.lateral[0].weight), 32, head.lateral[1].weight)
    up = F.interpolate(tokens.level(0), scale_factor=2, mode="bilinear", align_corners=False)
    fused = F.conv2d(lateral + up, head.fusion[0].weight, padding=1)
    fused = F.group_norm(fused, 32, head.fusion[1].weight, head.fusion[1].bias).relu()
    expected = F.conv2d(fused, head.pixel_embed.weight, head.pixel_embed.bias)
    torch.testing.assert_close(head({4: fine, 8: torch.randn(2, 10, 8, 12)}, tokens), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(in_channels={8: 4, 16: 4}), r"stride 4; it has \[8, 16\]"),
        (dict(hidden_dim=48), "48 is not a multiple of 32"),
    ],
)
def test_what_does_not_fit_is_explained(options, message):
    with pytest.raises(ValueError, match=message):
        PixelHead(**{"in_channels": CHANNELS, "hidden_dim": 32, **options})
