"""Swin Transformer (arXiv 2103.14030) as detectors compute it.

Shape letters: B images, H and W of a map, C channels, M heads, h and w of a window, N = h * w tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import use_fused_attn
from timm.models import is_model, is_model_in_modules
from timm.models.swin_transformer import (
    SwinTransformerBlock,
    SwinTransformerStage,
    WindowAttention,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn

from detrex.layers import is_traced
from detrex.modeling.backbones.timm_backbone import timm_features

FIXED_OPTIONS = {"strict_img_size": False, "always_partition": True}
"""Images of any size, and windows that never shrink to fit a small map."""


class SwinBackbone(nn.Module):
    """timm's Swin Transformer, changed to compute what published detectors with a Swin compute.

    Trained weights of detectors need these differences from timm's model, which is made for classification:
    maps are padded to whole windows (right and below, with zeros) before they are shifted, not after; every
    second block shifts windows, however small the map is; and each returned map has its own layer norm.
    Images may have any size: they are padded likewise, and sizes of maps are rounded up.

    Args:
        name: timm's name of a Swin (first version), with or without the tag of pretrained weights.
        strides: the feature maps to return, finest first.
        pretrained: load timm's weights (a download on first use); the norms of the maps are not among them.
        output_norm: normalise each returned map.
        options: further keyword arguments of ``timm.create_model``, such as ``drop_path_rate``.

    Raises:
        ValueError: if there is no such model, it is no Swin, it has no feature map at one of the strides,
            these do not ascend, or an option cannot be changed.
    """

    def __init__(
        self,
        name: str = "swin_tiny_patch4_window7_224",
        strides: Sequence[int] = (4, 8, 16, 32),
        pretrained: bool = False,
        output_norm: bool = True,
        options: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        _check_swin(name, options or {})
        options = {**(options or {}), **FIXED_OPTIONS}
        self.strides = tuple(strides)
        self.model, self.channels = timm_features(name, strides, pretrained, options)
        self.model["patch_embed"].dynamic_img_pad = True
        self.norms = nn.ModuleList(
            nn.LayerNorm(channels) if output_norm else nn.Identity() for channels in self.channels.values()
        )
        for module in self.model.modules():
            if isinstance(module, SwinTransformerBlock):
                module.attn.__class__ = MapAttention
                # By default, timm uses fused attention here only if an environment variable asks for it.
                vars(module.attn)["fused_attn"] = use_fused_attn()

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images (B, 3, H, W) to maps by stride, each (B, C, H / stride, W / stride)."""
        x = self.model["patch_embed"](images)  # (B, H, W, C), as all below
        norms = dict(zip(self.strides, self.norms, strict=True))
        maps = {}
        # Stages beyond the last map that is used do not exist.
        stages = [m for m in self.model.values() if isinstance(m, SwinTransformerStage)]
        for stage, info in zip(stages, self.model.feature_info.info, strict=False):
            x = _run_stage(stage, x)
            stride = info["reduction"]
            if stride in norms:
                maps[stride] = norms[stride](x).permute(0, 3, 1, 2).contiguous()  # (B, C, H, W)
        return maps


def _check_swin(name: str, options: Mapping[str, Any]) -> None:
    if is_model(name) and not is_model_in_modules(name, {"swin_transformer"}):
        raise ValueError(
            f"backbone '{name}' is no Swin Transformer of the first version; TimmBackbone takes other models"
        )
    for option, value in FIXED_OPTIONS.items():
        if options.get(option, value) != value:
            raise ValueError(f"SwinBackbone: option '{option}' is always {value}; leave it out of 'options'")


def _run_stage(stage: Any, x: Tensor) -> Tensor:
    x = stage.downsample(x)
    height, width = x.shape[1:3]
    rows, columns = stage.blocks[0].window_size
    padded = (height + -height % rows, width + -width % columns)
    mask = None
    for block in stage.blocks:
        if any(block.shift_size) and mask is None:  # it is the same in all of them
            mask = shift_mask(padded, block.window_size, block.shift_size, x)
        shift = tuple(block.shift_size)
        found = block.attn(block.norm1(x), padded, shift, mask if any(shift) else None)
        x = x + block.drop_path1(found)
        x = x + block.drop_path2(block.mlp(block.norm2(x)))
    return x


class MapAttention(WindowAttention):
    """timm's attention within windows, for a map that is padded with zeros to whole windows.

    Linear layers compute almost nothing for padding, of which small maps have much: windows of 12x12 turn
    30x40 tokens into 36x48. The queries, keys and values of padding are the layer's bias, and what padding
    attends to is not used.
    """

    relative_position_index: Tensor

    def forward(  # type: ignore[override]  # called by _run_stage alone
        self, x: Tensor, padded: tuple[int, int], shift: tuple[int, int], mask: Tensor | None
    ) -> Tensor:
        """Attends.

        Args:
            x: (B, H, W, C).
            padded: height and width of whole windows.
            shift: rows and columns by which windows are shifted.
            mask: (windows, N, N) of :func:`shift_mask`, if they are.

        Returns:
            (B, H, W, C).
        """
        height, width = x.shape[1:3]
        # Padding after the layer moves three times as many channels, so it pays only if there is much
        # padding. Graphs for any size do not know how much there is.
        if is_traced() or 10 * padded[0] * padded[1] < 11 * height * width:
            qkv = self.qkv(F.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height)))
        else:
            qkv = self._pad_with_bias(self.qkv(x), padded)  # (B, padded height, padded width, 3 * C)
        down, right = shift
        if down or right:
            qkv = qkv.roll((-down, -right), dims=(1, 2))
        windows = window_partition(qkv, self.window_size).flatten(1, 2)  # (B * windows, N, 3 * C)
        windows = self._attend(windows, mask).unflatten(1, self.window_size)  # (B * windows, h, w, C)
        x = window_reverse(windows, self.window_size, *padded)  # (B, padded height, padded width, C)
        if down or right:
            x = x.roll((down, right), dims=(1, 2))
        return self.proj_drop(self.proj(x[:, :height, :width]))

    def _pad_with_bias(self, qkv: Tensor, padded: tuple[int, int]) -> Tensor:
        """Pads queries, keys and values (B, H, W, 3 * C) right and below with those of zeros."""
        count, height, width, channels = qkv.shape
        bias = qkv.new_zeros(channels) if self.qkv.bias is None else self.qkv.bias.to(qkv.dtype)
        qkv = torch.cat([qkv, bias.expand(count, height, padded[1] - width, channels)], 2)
        return torch.cat([qkv, bias.expand(count, padded[0] - height, padded[1], channels)], 1)

    def _attend(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        """Queries, keys and values of windows (B * windows, N, 3 * C) to (B * windows, N, C)."""
        size, heads = self.window_area, self.num_heads
        qkv = qkv.unflatten(2, (3, heads, -1))  # (B * windows, N, 3, M, C / M)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B * windows, M, N, C / M) each
        # The learned bias of each pair of tokens in a window, by the distance between them.
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.unflatten(0, (size, size)).permute(2, 0, 1).contiguous()[None]  # (1, M, N, N)
        if mask is not None:
            bias = bias + mask[:, None]  # (windows, M, N, N)
            bias = bias.repeat(len(query) // len(mask), 1, 1, 1)  # (B * windows, M, N, N)
        dropout = self.attn_drop.p if self.training else 0.0
        if self.fused_attn:
            found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        else:
            logits = (query * self.scale) @ key.transpose(-2, -1) + bias  # (B * windows, M, N, N)
            found = self.attn_drop(logits.softmax(-1)) @ value  # (B * windows, M, N, C / M)
        return found.transpose(1, 2).flatten(2)


def shift_mask(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], like: Tensor
) -> Tensor:
    """A mask that separates, in a shifted map, tokens of a window that were not neighbours before the shift.

    The last ``shift`` rows and columns came round from the other end of the map. (Published code
    distinguishes three regions along each side; the first two never meet in a window.)

    Args:
        size: height and width of the map, multiples of the window's.
        window: height and width of a window.
        shift: rows and columns by which the map was shifted.
        like: gives device and dtype.

    Returns:
        (windows, N, N): -100 for tokens of different regions, else 0, to be added to attention's logits.
    """
    rows, columns = (
        (torch.arange(n, device=like.device) >= n - s).long() for n, s in zip(size, shift, strict=True)
    )
    regions = 2 * rows[:, None] + columns  # (height, width)
    regions = window_partition(regions[None, :, :, None], window).flatten(1)  # (windows, N)
    different = regions[:, :, None] != regions[:, None, :]  # (windows, N, N)
    return torch.zeros_like(different, dtype=like.dtype).masked_fill(different, -100.0)
