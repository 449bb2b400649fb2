"""Plain vision transformers with the simple feature pyramid of ViTDet (arXiv 2203.16527, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from detrex.modeling.backbones.timm_backbone import check_ascending, create_features

PATCH_SIZE = 16


def pyramid_channels(strides: Sequence[int], channels: int) -> dict[int, int]:
    """Channels of :class:`VitPyramid`'s maps by stride, for the ``in_channels`` of an encoder."""
    return dict.fromkeys(strides, channels)


class VitPyramid(nn.Module):
    """A plain ViT of timm, its last map of stride 16 made into a pyramid.

    Args:
        name: timm's name of a ViT with patches of 16 pixels, with or without the tag of pretrained weights
            ("vit_large_patch16_dinov3.lvd1689m"). It must take images of any size (timm's option
            ``dynamic_img_size``), as the classic ViT, DeiT, EVA-02 and DINOv3 do.
        strides: the maps to make, finest first, out of 4, 8, 16 and 32.
        pretrained: load timm's weights (a download on first use); the pyramid is not among them.
        options: further keyword arguments of ``timm.create_model``.
        channels: of each map.

    Raises:
        ValueError: if there is no such model, it is not such a ViT, or a stride is not one of these.
    """

    def __init__(
        self,
        name: str = "vit_base_patch16_224",
        strides: Sequence[int] = (4, 8, 16, 32),
        pretrained: bool = False,
        options: Mapping[str, Any] | None = None,
        channels: int = 256,
    ):
        super().__init__()
        check_ascending(strides)
        self.strides = tuple(strides)
        self.channels = pyramid_channels(strides, channels)
        self.model = _plain_vit(name, pretrained, options or {})
        width = self.model.feature_info.channels()[-1]
        self.scales = nn.ModuleList(pyramid_scale(stride, width, channels) for stride in strides)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images (B, 3, H, W) to maps by stride, each (B, C, H / stride, W / stride).

        Raises:
            ValueError: if H or W is not divisible by 16 and by each stride.
        """
        divisor = max(PATCH_SIZE, *self.strides)
        if images.shape[-2] % divisor or images.shape[-1] % divisor:
            raise ValueError(
                f"VitPyramid: images of {tuple(images.shape[-2:])} pixels (height, width) are not divisible "
                f"by {divisor}; set model.size_divisor to {divisor}"
            )
        (last,) = self.model(images)  # (B, C, H / 16, W / 16)
        return {stride: scale(last) for stride, scale in zip(self.strides, self.scales, strict=True)}


def _plain_vit(name: str, pretrained: bool, options: Mapping[str, Any]) -> Any:
    """timm's model, which returns the map of its last block."""
    needed = f"VitPyramid needs a plain ViT of images of any size, with patches of {PATCH_SIZE} pixels"
    options = {**options, "dynamic_img_size": True}
    try:
        model = create_features(name, pretrained=pretrained, out_indices=[-1], **options)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
        raise ValueError(f"backbone '{name}' cannot take images of any size; {needed}") from error
    strides = sorted({info["reduction"] for info in model.feature_info.info})
    if strides != [PATCH_SIZE]:
        raise ValueError(f"backbone '{name}' has feature maps at strides {strides}; {needed}")
    return model


def pyramid_scale(stride: int, width: int, channels: int) -> nn.Sequential:
    """Layers that turn the map of stride 16 and ``width`` channels into one of another stride."""
    resize, resized = _resize(stride, width)
    return nn.Sequential(
        *resize,
        nn.Conv2d(resized, channels, kernel_size=1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(channels),
    )


def _resize(stride: int, width: int) -> tuple[list[nn.Module], int]:
    """Modules that resize the map, and the number of channels that they return."""
    half, quarter = width // 2, width // 4
    if stride == 4:
        second = nn.ConvTranspose2d(half, quarter, kernel_size=2, stride=2)
        return [
            nn.ConvTranspose2d(width, half, kernel_size=2, stride=2),
            LayerNorm2d(half),
            nn.GELU(),
            second,
        ], quarter
    if stride == 8:
        return [nn.ConvTranspose2d(width, half, kernel_size=2, stride=2)], half
    if stride == 16:
        return [], width
    if stride == 32:
        return [nn.MaxPool2d(2)], width
    raise ValueError(f"VitPyramid has maps of strides 4, 8, 16 and 32, not {stride}")
