"""Backbones that were published on their own: names of other code bases against timm's."""

from __future__ import annotations

import re

# Stage i of detectron2's ResNet ("res2" to "res5") is timm's "layer<i - 1>".
_TO_TIMM_RESNET = (
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    (r"^res(\d)\.(\d+)\.shortcut\.norm\.", lambda m: f"layer{int(m[1]) - 1}.{m[2]}.downsample.1."),
    (r"^res(\d)\.(\d+)\.shortcut\.", lambda m: f"layer{int(m[1]) - 1}.{m[2]}.downsample.0."),
    (r"^res(\d)\.(\d+)\.conv(\d)\.norm\.", lambda m: f"layer{int(m[1]) - 1}.{m[2]}.bn{m[3]}."),
    (r"^res(\d)\.(\d+)\.conv(\d)\.", lambda m: f"layer{int(m[1]) - 1}.{m[2]}.conv{m[3]}."),
)
_TO_DETECTRON2_RESNET = (
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^conv1\.", "stem.conv1."),
    (r"^layer(\d)\.(\d+)\.downsample\.1\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.norm."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm."),
    (r"^layer(\d)\.(\d+)\.conv(\d)\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}."),
)

# Published Swins reduce the map at the end of a stage, timm's at the start of the next.
_TO_TIMM_SWIN = (
    (r"^layers\.(\d+)\.downsample\.", lambda m: f"model.layers_{int(m[1]) + 1}.downsample."),
    (r"^layers\.(\d+)\.", r"model.layers_\1."),
    (r"^patch_embed\.", "model.patch_embed."),
    (r"^norm(\d)\.", r"norms.\1."),
)
_TO_DETECTRON2_SWIN = (
    (r"^model\.layers_(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample."),
    (r"^model\.layers_(\d+)\.", r"layers.\1."),
    (r"^model\.patch_embed\.", "patch_embed."),
    (r"^norms\.(\d)\.", r"norm\1."),
)
_COMPUTED_SWIN = re.compile(r"(^|\.)(relative_position_index|relative_coords_table|attn_mask)$")


def resnet_name(name: str) -> str:
    """timm's name for an entry of detectron2's ResNet ("res2.0.conv1.norm.weight"), both without prefix.

    Other names come back unchanged.
    """
    return _renamed(name, _TO_TIMM_RESNET)


def detectron2_resnet_name(name: str) -> str:
    """The inverse of :func:`resnet_name`: "layer1.0.bn1.weight" to "res2.0.conv1.norm.weight"."""
    return _renamed(name, _TO_DETECTRON2_RESNET)


def swin_name(name: str) -> str | None:
    """:class:`~detrex.modeling.SwinBackbone`'s name for an entry of a published Swin, both without prefix.

    Args:
        name: as in Swin's own files or in detectron2 ("layers.0.downsample.norm.weight", "norm0.bias").

    Returns:
        The name ("model.layers_1.downsample.norm.weight", "norms.0.bias"), or None for an index or mask that
        a model computes itself. Other names, a classifier's among them, come back unchanged.
    """
    return None if _COMPUTED_SWIN.search(name) else _renamed(name, _TO_TIMM_SWIN)


def detectron2_swin_name(name: str) -> str:
    """The inverse of :func:`swin_name`, in the names of detectron2's models."""
    return _renamed(name, _TO_DETECTRON2_SWIN)


def _renamed(name: str, table: tuple) -> str:
    for pattern, replacement in table:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name
