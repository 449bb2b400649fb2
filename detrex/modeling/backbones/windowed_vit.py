"""Plain vision transformers with windows, as detectors use them.

ViTDet is arXiv 2203.16527, EVA 2211.07636, EVA-02 2303.11331. Names of parameters are the published ones.

Shape letters: B images or windows, H and W cells of a map or window, N = H * W tokens, M heads, C channels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models.swin_transformer import window_partition, window_reverse
from torch import Tensor, nn

from detrex.modeling.backbones.timm_backbone import check_ascending
from detrex.modeling.backbones.vit import PATCH_SIZE, pyramid_channels, pyramid_scale

NORM_EPS = 1e-6
INIT_STD = 0.02
# Rotary positions are scaled as if every map and window had as many cells along a side as in pretraining.
ROTARY_SIDE = 16
ROTARY_TEMPERATURE = 10000.0


class RelativeAttention(nn.Module):
    """Attention with learned biases for relative rows and columns (ViTDet, EVA).

    Args:
        dim: C.
        num_heads: M.
        side: cells along a side of the maps that the biases are made for.
        key_bias: whether keys have a bias, as in ViTDet; EVA's have none.
    """

    def __init__(self, dim: int, num_heads: int, side: int, key_bias: bool = True):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=key_bias), nn.Linear(dim, dim)
        self.q_bias, self.v_bias = (None if key_bias else nn.Parameter(torch.zeros(dim)) for _ in range(2))
        self.rel_pos_h, self.rel_pos_w = (
            nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Attends within maps or windows: (B, H, W, C) to the same shape."""
        height, width = x.shape[1:3]
        bias: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])  # (3 * C,)
        qkv = F.linear(x.flatten(1, 2), self.qkv.weight, bias)  # (B, N, 3 * C)
        query, key, value = (_heads(t, self.num_heads) for t in qkv.chunk(3, -1))  # (B, M, N, C / M)
        rows, columns = (_relative(*pair) for pair in ((self.rel_pos_h, height), (self.rel_pos_w, width)))
        grid = query.unflatten(2, (height, width))  # (B, M, H, W, C / M)
        by_row = torch.einsum("bmhwc,hkc->bmhwk", grid, rows)[..., None]  # (B, M, H, W, H, 1)
        by_column = torch.einsum("bmhwc,wkc->bmhwk", grid, columns)[..., None, :]  # (B, M, H, W, 1, W)
        added = (by_row + by_column).flatten(4).flatten(2, 3)  # (B, M, N, N)
        return _joined(F.scaled_dot_product_attention(query, key, value, added), self.proj, x)


class RotaryTable(nn.Module):
    """Cosines and sines of the two-dimensional rotary encoding (RoPE, arXiv 2104.09864) of a square map.

    The table is a buffer, because published files have it as an entry; tables of other sizes are computed.

    Args:
        dim: channels of a head.
        side: cells along a side.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, dim: int, side: int):
        super().__init__()
        self.dim, self.side = dim, side
        angles = self._angles(side, side, torch.device("cpu"))
        self.register_buffer("freqs_cos", angles.cos())
        self.register_buffer("freqs_sin", angles.sin())

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Rotates pairs of channels of tokens (B, M, N, dim) of a map of ``size`` cells."""
        cos, sin = self.freqs_cos, self.freqs_sin
        if size != (self.side, self.side):
            angles = self._angles(*size, x.device)
            cos, sin = angles.cos(), angles.sin()
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)  # (B, M, N, dim / 2) each
        turned = torch.stack([-second, first], -1).flatten(-2)  # (B, M, N, dim)
        return x * cos.to(x.dtype) + turned * sin.to(x.dtype)

    def _angles(self, height: int, width: int, device: torch.device) -> Tensor:
        """Angles (N, dim): half of the channels turn with the row, half with the column."""
        quarter = torch.arange(self.dim // 4, device=device, dtype=torch.float32)  # (dim / 4,)
        frequencies = ROTARY_TEMPERATURE ** (-quarter / (self.dim // 4))
        rows, columns = (
            torch.outer(torch.arange(n, device=device) / n * ROTARY_SIDE, frequencies).repeat_interleave(2, 1)
            for n in (height, width)
        )
        rows, columns = rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)
        return torch.cat([rows, columns], -1).flatten(0, 1)


class RotaryAttention(nn.Module):
    """Attention whose queries and keys are rotated by their position; keys have no bias (EVA-02).

    Args:
        dim: C.
        num_heads: M.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(dim)) for _ in range(2))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, table: RotaryTable) -> Tensor:
        """Attends within maps or windows, (B, H, W, C) to the same shape, with the table of their size."""
        tokens, (height, width) = x.flatten(1, 2), x.shape[1:3]  # (B, N, C)
        query, key, value = (
            _heads(projected, self.num_heads)
            for projected in (
                F.linear(tokens, self.q_proj.weight, self.q_bias),
                self.k_proj(tokens),
                F.linear(tokens, self.v_proj.weight, self.v_bias),
            )
        )
        query, key = (table(t, (height, width)) for t in (query, key))  # (B, M, N, C / M) each
        return _joined(F.scaled_dot_product_attention(query, key, value), self.proj, x)


class GeluMlp(nn.Module):
    """Two linear layers with GELU between them: (..., dim) to the same shape."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwigluMlp(nn.Module):
    """A gated layer (arXiv 2002.05202) with a norm inside: (..., dim) to the same shape."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.w1, self.w2, self.w3 = nn.Linear(dim, hidden), nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.ffn_ln = nn.LayerNorm(hidden, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class WindowedBlock(nn.Module):
    """Attention within windows or over the whole map, and an MLP.

    Args:
        dim: C.
        attention, mlp: modules that map (B, H, W, C) to the same shape.
        window: cells along a side of windows; 0 for the whole map.
        drop_path: probability with which, in training, an image skips each of the two.
    """

    def __init__(self, dim: int, attention: nn.Module, mlp: nn.Module, window: int, drop_path: float):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=NORM_EPS) for _ in range(2))
        self.attn, self.mlp = attention, mlp
        self.window, self.drop_path = window, DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, *table: RotaryTable) -> Tensor:
        """Refines maps (B, H, W, C); ``table`` is the table of positions, for attention that takes one."""
        height, width = x.shape[1:3]
        attended = self.norm1(x)
        if self.window:
            down, right = -height % self.window, -width % self.window
            padded = F.pad(attended, (0, 0, 0, right, 0, down))  # (B, H + down, W + right, C)
            size = (self.window, self.window)
            windows = self.attn(window_partition(padded, size), *table)  # (B * windows, window, window, C)
            attended = window_reverse(windows, size, height + down, width + right)[:, :height, :width]
        else:
            attended = self.attn(attended, *table)
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class WindowedVit(nn.Module):
    """A plain ViT with a simple feature pyramid, in which most blocks attend within windows.

    Use :class:`VitDet`, :class:`Eva` or :class:`Eva02`, which define the attention and MLP of the blocks.

    Args:
        embed_dim, depth, num_heads: as in the papers.
        mlp_dim: hidden channels of the MLP.
        window: cells along a side of windows.
        global_blocks: numbers of the blocks, from 0, that attend to the whole map.
        image_size: side in pixels of the square images that the model is made for. Others work as well:
            positions are interpolated or computed anew.
        pretrain_size: side in pixels of the images in pretraining, which the position embedding is for.
        strides: the maps to make, finest first, out of 4, 8, 16, 32 and, after 32, 64.
        channels: of each map.
        drop_path_rate: ``drop_path`` of the last block; it rises linearly from 0 in the first one.

    Raises:
        ValueError: a map of such a stride cannot be made.
    """

    def __init__(
        self,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        window: int = 14,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        image_size: int = 1024,
        pretrain_size: int = 224,
        strides: Sequence[int] = (8, 16, 32, 64),
        channels: int = 256,
        drop_path_rate: float = 0.1,
    ):
        super().__init__()
        check_ascending(strides)
        if 64 in strides and 32 not in strides:
            raise ValueError(
                "the map of stride 64 is made from that of stride 32: add 32 to backbone.strides"
            )
        self.embed_dim, self.num_heads, self.mlp_dim, self.window = embed_dim, num_heads, mlp_dim, window
        self.strides, self.channels = tuple(strides), pyramid_channels(strides, channels)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (pretrain_size // PATCH_SIZE) ** 2, embed_dim))
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, embed_dim, PATCH_SIZE, PATCH_SIZE)))
        self.global_side = image_size // PATCH_SIZE
        self.blocks = nn.ModuleList()
        for number in range(depth):
            everywhere = number in global_blocks
            attention = self.attention(self.global_side if everywhere else window)
            drop_path = drop_path_rate * number / max(depth - 1, 1)
            self.blocks.append(
                WindowedBlock(embed_dim, attention, self.mlp(), 0 if everywhere else window, drop_path)
            )
        self.scales = nn.ModuleList(pyramid_scale(s, embed_dim, channels) for s in strides if s < 64)
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def attention(self, side: int) -> nn.Module:
        """The attention of a block over maps of ``side`` x ``side`` cells."""
        raise NotImplementedError("use VitDet, Eva or Eva02")

    def mlp(self) -> nn.Module:
        """The MLP of a block."""
        return GeluMlp(self.embed_dim, self.mlp_dim)

    def table(self, block: WindowedBlock) -> tuple[RotaryTable, ...]:  # noqa: ARG002
        """The table of positions of a block, if its attention takes one."""
        return ()

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images (B, 3, H, W) to maps by stride, each (B, C, H / stride, W / stride).

        Sides are rounded down to whole patches, as in published detectors.

        Raises:
            ValueError: the images are smaller than two patches.
        """
        if min(images.shape[-2:]) < 2 * PATCH_SIZE:
            raise ValueError(
                f"images of {tuple(images.shape[-2:])} pixels (height, width) are too small for this "
                f"backbone, which needs {2 * PATCH_SIZE} a side: set model.size_divisor to a multiple of that"
            )
        x = self.patch_embed(images)  # (B, C, H / 16, W / 16)
        x = x.permute(0, 2, 3, 1) + self._positions(x.shape[-2], x.shape[-1])  # (B, H / 16, W / 16, C)
        for block in self.blocks:
            assert isinstance(block, WindowedBlock)
            x = block(x, *self.table(block))
        last = x.permute(0, 3, 1, 2)  # (B, C, H / 16, W / 16)
        maps = {s: scale(last) for s, scale in zip(self.strides, self.scales, strict=False)}
        if 64 in self.strides:
            maps[64] = maps[32][:, :, ::2, ::2]
        return maps

    def _positions(self, height: int, width: int) -> Tensor:
        """The position embedding, (1, height, width, C), without its first entry, the class token's."""
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        grid = self.pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, C, side, side)
        if (height, width) != (side, side):
            grid = F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1)


class VitDet(WindowedVit):
    """ViTDet's backbone: learned biases of relative positions, an MLP with GELU."""

    def attention(self, side: int) -> nn.Module:
        return RelativeAttention(self.embed_dim, self.num_heads, side)


class Eva(WindowedVit):
    """EVA's (EVA-01's) backbone: like ViTDet's, but keys have no bias."""

    def attention(self, side: int) -> nn.Module:
        return RelativeAttention(self.embed_dim, self.num_heads, side, key_bias=False)


class Eva02(WindowedVit):
    """EVA-02's backbone: rotary positions, and a gated MLP."""

    def __init__(
        self,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_dim: int = 2048,
        window: int = 16,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        image_size: int = 1024,
        pretrain_size: int = 224,
        strides: Sequence[int] = (8, 16, 32, 64),
        channels: int = 256,
        drop_path_rate: float = 0.1,
    ):
        super().__init__(
            embed_dim, depth, num_heads, mlp_dim, window, global_blocks, image_size, pretrain_size, strides,
            channels, drop_path_rate,
        )  # fmt: skip
        dim = embed_dim // num_heads
        self.rope_win, self.rope_glb = RotaryTable(dim, window), RotaryTable(dim, self.global_side)

    def attention(self, side: int) -> nn.Module:  # noqa: ARG002
        return RotaryAttention(self.embed_dim, self.num_heads)

    def mlp(self) -> nn.Module:
        return SwigluMlp(self.embed_dim, self.mlp_dim)

    def table(self, block: WindowedBlock) -> tuple[RotaryTable, ...]:
        return (self.rope_win if block.window else self.rope_glb,)


def _heads(tokens: Tensor, num_heads: int) -> Tensor:
    """Splits channels into heads: (B, N, C) to (B, M, N, C / M)."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _joined(heads: Tensor, projection: nn.Module, like: Tensor) -> Tensor:
    """Joins heads (B, M, N, C / M) and projects them, in the shape of ``like`` (B, H, W, C)."""
    return projection(heads.transpose(1, 2).flatten(2)).view_as(like)


def _relative(table: Tensor, side: int) -> Tensor:
    """The rows of a table (2 * S - 1, C / M) for every pair of cells along a side: (side, side, C / M)."""
    if len(table) != 2 * side - 1:
        table = F.interpolate(table.T[None], 2 * side - 1, mode="linear")[0].T
    place = torch.arange(side, device=table.device)  # (side,)
    return table[place[:, None] - place + side - 1]
