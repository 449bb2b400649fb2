"""Backbones from timm, as pyramids of feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.layers import Format, freeze_batch_norm_2d
from torch import Tensor, nn


def backbone_channels(
    name: str, options: Mapping[str, Any] | None = None, strides: Sequence[int] | None = None
) -> dict[int, int]:
    """Channels of a timm model's feature maps by stride, for the ``in_channels`` of a pixel decoder.

    Args:
        name: timm's name of the model.
        options: keyword arguments of ``timm.create_model``.
        strides: the feature maps that are used; None for all that there are.

    Raises:
        ValueError: if timm has no such model, or it has no feature map at one of the strides.
    """
    try:
        with torch.device("meta"):  # only the shapes are of interest
            model = timm.create_model(name, features_only=True, pretrained=False, **(options or {}))
    except RuntimeError as error:
        if "Unknown model" not in str(error):
            raise
        similar = get_close_matches(name.split(".")[0], timm.list_models(), 5)
        raise ValueError(
            f"timm {timm.__version__} has no model named '{name}'; similar: {', '.join(similar) or 'none'}"
        ) from error
    available = dict(zip(model.feature_info.reduction(), model.feature_info.channels(), strict=True))
    missing = sorted(set(strides or ()) - set(available))
    if missing:
        raise ValueError(f"backbone '{name}' has feature maps at strides {list(available)}, not at {missing}")
    return available if strides is None else {stride: available[stride] for stride in strides}


class TimmBackbone(nn.Module):
    """Any timm model that offers feature maps.

    Args:
        name: timm's name, with or without the tag of pretrained weights ("resnet50.tv_in1k").
        strides: the feature maps to return, finest first.
        pretrained: load timm's weights (a download on first use).
        frozen_norm: batch norms use their stored statistics and are not trained, as in published detectors.
        options: further keyword arguments of ``timm.create_model``.

    Raises:
        ValueError: if there is no such model, or it has no feature map at one of the strides.
    """

    def __init__(
        self,
        name: str = "resnet50.tv_in1k",
        strides: Sequence[int] = (4, 8, 16, 32),
        pretrained: bool = False,
        frozen_norm: bool = True,
        options: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.strides = tuple(strides)
        self.channels = backbone_channels(name, options, strides)
        available = list(backbone_channels(name, options))
        indices = [available.index(stride) for stride in strides]
        model = timm.create_model(
            name, features_only=True, out_indices=indices, pretrained=pretrained, **(options or {})
        )
        # Transformers in timm, Swin among them, give (B, H, W, C) and say so.
        self.channels_last = getattr(model, "output_fmt", Format.NCHW) == Format.NHWC
        self.model = freeze_batch_norm_2d(model) if frozen_norm else model

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images (B, 3, H, W) to maps by stride, each (B, C, H / stride, W / stride)."""
        maps = self.model(images)
        if self.channels_last:
            maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        return dict(zip(self.strides, maps, strict=True))
