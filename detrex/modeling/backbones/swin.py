"""Swin Transformer (arXiv 2103.14030) as detectors compute it.

Shape letters: B images, H and W of a map, C channels, N tokens of a window.
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
    window_partition,
    window_reverse,
)
from torch import Tensor, nn

from detrex.modeling.backbones.timm_backbone import timm_features

FIXED_OPTIONS = {"strict_img_size": False, "always_partition": True}
"""Images of any size, and windows that never shrink to fit a small map."""


class SwinBackbone(nn.Module):
    """timm's Swin Transformer, computing what published detectors with a Swin compute.

    These differ from timm's model, made for classification, in what counts for trained weights. Maps are
    padded to whole windows (right and below, with zeros) before they are shifted, not after; every second
    block shifts, however small the map is; and each map that is returned has a layer norm of its own.
    Images need not be divisible by anything: they are padded likewise, and maps are rounded up in size.

    Args:
        name: timm's name of a Swin (first version), with or without the tag of pretrained weights.
        strides: the feature maps to return, finest first.
        pretrained: load timm's weights (a download on first use); the norms of the maps are not among them.
        output_norm: normalise each returned map.
        options: further keyword arguments of ``timm.create_model``, such as ``drop_path_rate``.

    Raises:
        ValueError: if there is no such model, it is no Swin, it has no feature map at one of the strides,
            these do not ascend, or an option cannot be.
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
                # timm itself would take fused attention only when an environment variable asks for it.
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
                maps[stride] = norms[stride](x).permute(0, 3, 1, 2).contiguous()
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
        x = x + block.drop_path1(_attend(block, block.norm1(x), padded, mask))
        x = x + block.drop_path2(block.mlp(block.norm2(x)))
    return x


def _attend(block: Any, x: Tensor, padded: tuple[int, int], mask: Tensor | None) -> Tensor:
    """Attention within windows of a map (B, H, W, C), which is padded to ``padded`` (height, width)."""
    height, width, channels = x.shape[1:]
    down, right = block.shift_size
    x = F.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))
    if down or right:
        x = x.roll((-down, -right), dims=(1, 2))
    windows = window_partition(x, block.window_size).flatten(1, 2)  # (B * windows, N, C)
    windows = block.attn(windows, mask=mask if down or right else None)
    x = window_reverse(windows.unflatten(1, block.window_size), block.window_size, *padded)
    if down or right:
        x = x.roll((down, right), dims=(1, 2))
    return x[:, :height, :width]


def shift_mask(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], like: Tensor
) -> Tensor:
    """What keeps apart, in a shifted map, the tokens of a window that were not neighbours before.

    These are the last ``shift`` rows and columns, which came round from the other end of the map. (Published
    code tells apart three regions along each side; the first two never meet in a window.)

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
    different = regions[:, :, None] != regions[:, None, :]
    return torch.zeros_like(different, dtype=like.dtype).masked_fill(different, -100.0)
