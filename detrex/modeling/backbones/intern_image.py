"""InternImage (arXiv 2211.05778): stages of deformable convolutions (DCNv3).

Shape letters: B images, H and W cells of a map, G groups, P points of a kernel, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from detrex.layers import multi_scale_deformable_attention
from detrex.modeling.backbones.timm_backbone import check_ascending
from detrex.modeling.backbones.windowed_vit import GeluMlp

NORM_EPS = 1e-6
KERNEL = 3
STRIDES = (4, 8, 16, 32)


class DeformableConvolution(nn.Module):
    """A depth-wise convolution whose sampling points and weights depend on the position (DCNv3).

    It is computed as multi-scale deformable attention to the map itself, with the points of a 3 x 3 kernel.

    Args:
        dim: C.
        groups: G, each with its own points and weights.
        offset_scale: factor on the distance of points from the centre.
    """

    def __init__(self, dim: int, groups: int, offset_scale: float = 1.0):
        super().__init__()
        self.groups, self.offset_scale = groups, offset_scale
        self.dw_conv = nn.Conv2d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)
        self.dw_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.offset = nn.Linear(dim, groups * KERNEL**2 * 2)
        self.mask = nn.Linear(dim, groups * KERNEL**2)
        self.input_proj, self.output_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        for layer in (self.offset, self.mask):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves a map: (B, H, W, C) to the same shape."""
        height, width = x.shape[1:3]
        seen = self.dw_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, H, W, C)
        seen = F.gelu(self.dw_norm(seen)).flatten(1, 2)  # (B, H * W, C)
        # (B, H * W, G, 1, P, 2), x before y, and (B, H * W, G, 1, P).
        offsets = self.offset(seen).unflatten(-1, (self.groups, 1, KERNEL**2, 2))
        weights = self.mask(seen).unflatten(-1, (self.groups, 1, KERNEL**2)).softmax(-1)
        # Points of the kernel are numbered column by column.
        step = torch.arange(KERNEL, device=x.device) - KERNEL // 2
        kernel = torch.cartesian_prod(step, step)  # (P, 2)
        cells = torch.cartesian_prod(*(torch.arange(n, device=x.device) for n in (height, width))).flip(-1)
        places = cells[:, None, None, None] + 0.5 + (kernel + offsets.float()) * self.offset_scale
        value = self.input_proj(x).flatten(1, 2).unflatten(-1, (self.groups, -1))  # (B, H * W, G, C / G)
        size = places.new_tensor([width, height])
        found = multi_scale_deformable_attention(value, ((height, width),), places / size, weights)
        return self.output_proj(found).view_as(x)


class InternImageBlock(nn.Module):
    """A deformable convolution and an MLP, scaled for each channel.

    Args:
        dim: C.
        groups, offset_scale: see :class:`DeformableConvolution`.
        post_norm: normalise after each of the two instead of before.
        drop_path: probability with which, in training, an image skips each of the two.
    """

    def __init__(self, dim: int, groups: int, offset_scale: float, post_norm: bool, drop_path: float):
        super().__init__()
        self.dcn = DeformableConvolution(dim, groups, offset_scale)
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=NORM_EPS) for _ in range(2))
        self.mlp = GeluMlp(dim, 4 * dim)
        self.gamma1, self.gamma2 = (nn.Parameter(torch.ones(dim)) for _ in range(2))
        self.post_norm, self.drop_path = post_norm, DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Refines maps (B, H, W, C)."""
        for layer, norm, gamma in ((self.dcn, self.norm1, self.gamma1), (self.mlp, self.norm2, self.gamma2)):
            found = norm(layer(x)) if self.post_norm else layer(norm(x))
            x = x + self.drop_path(gamma * found)
        return x


class Reduction(nn.Module):
    """A convolution of stride 2 and a norm: (B, H, W, C) to (B, H / 2, W / 2, C')."""

    def __init__(self, in_dim: int, out_dim: int, bias: bool):
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, 3, stride=2, padding=1, bias=bias)
        self.norm = nn.LayerNorm(out_dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class InternImageStage(nn.Module):
    """Blocks at one stride, with the reduction of the map before the next stage.

    Args:
        dim, groups, offset_scale, post_norm: see :class:`InternImageBlock`.
        drop_paths: one for each block, see :class:`InternImageBlock`.
        last: whether this is the last stage, which has no reduction.
    """

    def __init__(
        self,
        dim: int,
        groups: int,
        offset_scale: float,
        post_norm: bool,
        drop_paths: Sequence[float],
        last: bool,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            InternImageBlock(dim, groups, offset_scale, post_norm, rate) for rate in drop_paths
        )
        self.norm = nn.Identity() if post_norm else nn.LayerNorm(dim, eps=NORM_EPS)
        self.downsample = nn.Identity() if last else Reduction(dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Refines maps (B, H, W, C), before the reduction."""
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class InternImage(nn.Module):
    """InternImage, of the sizes T, S, B and L.

    Args:
        width: channels of the first stage; each further one has twice as many.
        depths: blocks of the stages.
        groups: of the first stage's deformable convolutions; each further one has twice as many.
        offset_scale, post_norm: see :class:`InternImageBlock`.
        strides: the maps to return, finest first, out of 4, 8, 16 and 32.
        drop_path_rate: ``drop_path`` of the last block; it rises linearly from 0 in the first one.

    Raises:
        ValueError: there is no map of such a stride, or the strides do not ascend.
    """

    def __init__(
        self,
        width: int = 64,
        depths: Sequence[int] = (4, 4, 18, 4),
        groups: int = 4,
        offset_scale: float = 1.0,
        post_norm: bool = False,
        strides: Sequence[int] = (8, 16, 32),
        drop_path_rate: float = 0.2,
    ):
        super().__init__()
        check_ascending(strides)
        self.strides, self.channels = tuple(strides), intern_image_channels(width, strides)
        self.stem = nn.Sequential(
            Reduction(3, width // 2, bias=True), Reduction(width // 2, width, bias=True)
        )
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        depths = depths[: 1 + STRIDES.index(strides[-1])]  # the stages that the maps need
        self.levels = nn.ModuleList(
            InternImageStage(
                width * 2**i,
                groups * 2**i,
                offset_scale,
                post_norm,
                [next(rates) for _ in range(depth)],
                last=i == len(depths) - 1,
            )
            for i, depth in enumerate(depths)
        )

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images (B, 3, H, W) to maps by stride, (B, C, H / stride, W / stride), rounded up."""
        first, second = self.stem
        x = second(F.gelu(first(images.permute(0, 2, 3, 1))))  # (B, H / 4, W / 4, C)
        maps = {}
        for stride, level in zip(STRIDES, self.levels, strict=False):
            assert isinstance(level, InternImageStage)
            x = level(x)
            if stride in self.strides:
                maps[stride] = x.permute(0, 3, 1, 2).contiguous()  # (B, C, H / stride, W / stride)
            x = level.downsample(x)
        return maps


def intern_image_channels(width: int, strides: Sequence[int]) -> dict[int, int]:
    """Channels of :class:`InternImage`'s maps by stride, for the ``in_channels`` of an encoder.

    Raises:
        ValueError: there is no map of such a stride.
    """
    missing = sorted(set(strides) - set(STRIDES))
    if missing:
        raise ValueError(f"InternImage has maps at strides {list(STRIDES)}, not at {missing}")
    return {stride: width * stride // STRIDES[0] for stride in strides}
