"""Backbones from timm that return feature maps by stride."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import timm
from timm.layers import Format, LayerNorm2d, freeze_batch_norm_2d
from torch import Tensor, nn

from detrex.runtime.shapes_only import shapes_only


def backbone_channels(
    name: str, options: Mapping[str, Any] | None = None, strides: Sequence[int] | None = None
) -> dict[int, int]:
    """Channels of a timm model's feature maps by stride, for the ``in_channels`` of an encoder.

    Args:
        name: timm's name of the model.
        options: keyword arguments of ``timm.create_model``.
        strides: the feature maps that are used, finest first; None for all of them.

    Raises:
        ValueError: if timm has no such model, it has no feature map at one of the strides, or these do not
            ascend.
    """
    return {stride: channels for stride, (_, channels) in _feature_maps(name, options, strides).items()}


def timm_features(
    name: str, strides: Sequence[int], pretrained: bool = False, options: Mapping[str, Any] | None = None
) -> tuple[Any, dict[int, int]]:
    """timm's model that returns only the feature maps at ``strides``, and their channels by stride.

    Raises:
        ValueError: see :func:`backbone_channels`.
    """
    maps = _feature_maps(name, options, strides)
    indices = [index for index, _ in maps.values()]
    model = create_features(name, pretrained=pretrained, out_indices=indices, **(options or {}))
    return model, {stride: channels for stride, (_, channels) in maps.items()}


def create_features(name: str, **options: Any) -> Any:
    """``timm.create_model`` for feature maps; the error for an unknown name suggests similar ones.

    The result is a module with attributes of timm that type checkers do not know.

    Raises:
        ValueError: if timm has no such model.
    """
    try:
        return timm.create_model(name, features_only=True, **options)
    except RuntimeError as error:
        if "Unknown model" not in str(error):
            raise
        similar = get_close_matches(name.split(".")[0], timm.list_models(), 5)
        raise ValueError(
            f"timm {timm.__version__} has no model named '{name}'; similar: {', '.join(similar) or 'none'}"
        ) from error


def _feature_maps(
    name: str, options: Mapping[str, Any] | None, strides: Sequence[int] | None
) -> dict[int, tuple[int, int]]:
    """Index in timm and channels of the map at each stride: the deepest, where several have the same."""
    available = _all_feature_maps(name, options or {})
    if strides is None:
        return available
    missing = sorted(set(strides) - set(available))
    if missing:
        raise ValueError(f"backbone '{name}' has feature maps at strides {list(available)}, not at {missing}")
    check_ascending(strides)
    return {stride: available[stride] for stride in strides}


def _all_feature_maps(name: str, options: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    """See :func:`_feature_maps`; read once of each model, as configs ask for it several times."""
    try:
        key = name, json.dumps(options, sort_keys=True)
    except TypeError:  # an option that is an object
        return _read_feature_maps(name, options)
    if key not in _READ:
        _READ[key] = _read_feature_maps(name, options)
    return _READ[key]


def _read_feature_maps(name: str, options: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    with shapes_only():
        info = create_features(name, pretrained=False, **options).feature_info
    numbers = zip(info.out_indices, info.channels(), strict=True)
    return dict(zip(info.reduction(), numbers, strict=True))


_READ: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
"""What :func:`_all_feature_maps` has read, by name and options of the model."""


def check_ascending(strides: Sequence[int]) -> None:
    """Checks that maps are listed finest first.

    Raises:
        ValueError: if the strides are not in ascending order, or one is repeated.
    """
    if list(strides) != sorted(set(strides)):
        raise ValueError(
            f"the backbone's strides {list(strides)} must be in ascending order (finest map first), each once"
        )


class TimmBackbone(nn.Module):
    """Any timm model that offers feature maps.

    Args:
        name: timm's name, with or without the tag of pretrained weights ("resnet50.tv_in1k").
        strides: the feature maps to return, finest first.
        pretrained: load timm's weights (a download on first use).
        frozen_norm: batch norms use their stored statistics and are not trained, as in published detectors.
        options: further keyword arguments of ``timm.create_model``.
        frozen_stages: everything up to this many of timm's feature maps, in the order of the network, is not
            trained; of a ResNet, 1 is the stem and 2 the first stage too.

    Raises:
        ValueError: if there is no such model, it has no feature map at one of the strides, these do not
            ascend, or it has fewer stages.
    """

    def __init__(
        self,
        name: str = "resnet50.tv_in1k",
        strides: Sequence[int] = (4, 8, 16, 32),
        pretrained: bool = False,
        frozen_norm: bool = True,
        options: Mapping[str, Any] | None = None,
        frozen_stages: int = 0,
    ):
        super().__init__()
        self.strides = tuple(strides)
        model, self.channels = timm_features(name, strides, pretrained, options)
        # Some models of timm, such as Swin, return (B, H, W, C) and say so.
        self.channels_last = getattr(model, "output_fmt", Format.NCHW) == Format.NHWC
        self.model = freeze_batch_norm_2d(model) if frozen_norm else model
        _freeze_stages(self.model, frozen_stages)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images (B, 3, H, W) to maps by stride, each (B, C, H / stride, W / stride)."""
        maps = self.model(images)
        if self.channels_last:
            maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        return dict(zip(self.strides, maps, strict=True))


class NormedTimmBackbone(TimmBackbone):
    """A timm model with a layer norm for each of its maps, as in detectors with ConvNeXt or FocalNet.

    Args:
        name, strides, pretrained, options, frozen_stages: see :class:`TimmBackbone`. The norms of the maps
            are not among timm's weights.
        norm_eps: of the norms of the maps: 1e-6 in published models with ConvNeXt, 1e-5 with FocalNet.
    """

    def __init__(
        self,
        name: str = "convnext_tiny",
        strides: Sequence[int] = (8, 16, 32),
        pretrained: bool = False,
        options: Mapping[str, Any] | None = None,
        frozen_stages: int = 0,
        norm_eps: float = 1e-6,
    ):
        super().__init__(name, strides, pretrained, False, options, frozen_stages)
        self.norms = nn.ModuleList(LayerNorm2d(c, eps=norm_eps) for c in self.channels.values())

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """See :meth:`TimmBackbone.forward`."""
        maps = super().forward(images).items()
        return {stride: norm(x) for norm, (stride, x) in zip(self.norms, maps, strict=True)}


def _freeze_stages(model: Any, count: int) -> None:
    if count == 0:
        return
    ends = [str(entry["module"]).replace(".", "_") for entry in model.feature_info.info]
    children = dict(model.named_children())
    if not 0 < count <= len(ends) or ends[count - 1] not in children:
        raise ValueError(
            f"frozen_stages is {count}, but {type(model).__name__} has {len(ends)} stages, which end with "
            f"{', '.join(ends)}, in the parts {', '.join(children)}"
        )
    for name, child in children.items():
        child.requires_grad_(False)
        if name == ends[count - 1]:
            return
