"""Names of backbones in the detectors of the detrex zoo and of the authors of DETR and DINO."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from torch import Tensor

from detrex.checkpoint.backbones import resnet_name, swin_name

PREFIX = "backbone."
_TORCHVISION = re.compile(r"^(0\.)?body\.")
_STAGE_NORM = re.compile(r"^norm(\d)\.")
# Layers of the maps of a pyramid; each convolution holds its norm.
_PYRAMID = re.compile(r"^simfp_([2345])\.(\d)\.(norm\.)?")
_COMPUTED_VIT = re.compile(r"^net\.blocks\.\d+\.attn\.rope\.")  # repeats rope_win or rope_glb
_FOCALNET_LINEAR = re.compile(r"\.(modulation\.(f|proj)|mlp\.fc[12])\.weight$")

Table = tuple[tuple[str, str | Callable[[re.Match], str]], ...]

_CONVNEXT: Table = (
    (r"^downsample_layers\.0\.(\d)\.", r"model.stem_\1."),
    (r"^downsample_layers\.(\d)\.", r"model.stages_\1.downsample."),
    (r"^stages\.(\d)\.(\d+)\.dwconv\.", r"model.stages_\1.blocks.\2.conv_dw."),
    (r"^stages\.(\d)\.(\d+)\.pwconv(\d)\.", r"model.stages_\1.blocks.\2.mlp.fc\3."),
    (r"^stages\.(\d)\.(\d+)\.", r"model.stages_\1.blocks.\2."),
)
_FOCALNET: Table = (
    (r"^patch_embed\.", "model.stem."),
    (r"^layers\.(\d)\.downsample\.", lambda m: f"model.layers_{int(m[1]) + 1}.downsample."),
    (r"^layers\.(\d)\.blocks\.(\d+)\.gamma_(\d)$", r"model.layers_\1.blocks.\2.ls\3.gamma"),
    (r"^layers\.(\d)\.blocks\.(\d+)\.modulation\.ln\.", r"model.layers_\1.blocks.\2.modulation.norm."),
    (r"^layers\.(\d)\.", r"model.layers_\1."),
)
# The large FocalNets normalise after modulation and MLP.
_LARGE_FOCALNET: Table = (
    (r"^layers\.(\d)\.blocks\.(\d+)\.norm(\d)\.", r"model.layers_\1.blocks.\2.norm\3_post."),
    *_FOCALNET,
)
_INTERN_IMAGE: Table = (
    (r"^patch_embed\.conv(\d)\.", lambda m: f"stem.{int(m[1]) - 1}.conv."),
    (r"^patch_embed\.norm(\d)\.\d\.", lambda m: f"stem.{int(m[1]) - 1}.norm."),
    (r"^(levels\.\d\.blocks\.\d+\.)dcn\.dw_conv\.0\.", r"\1dcn.dw_conv."),
    (r"^(levels\.\d\.blocks\.\d+\.)dcn\.dw_conv\.1\.1\.", r"\1dcn.dw_norm."),
    (r"^(levels\.\d\.blocks\.\d+\.norm\d)\.\d\.", r"\1."),
    (r"^(levels\.\d\.(downsample\.)?norm)\.\d\.", r"\1."),
)


class DetectorBackbone:
    """This toolbox's names for the entries ``backbone.*`` of one file.

    Args:
        names: of all entries, from which the backbone is recognised.
        all_norms: whether the model has a norm for the first map, too, even if the file may not.
    """

    def __init__(self, names: Iterable[str], all_norms: bool = False):
        inner_names = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
        self._table = _table(inner_names)
        self._focalnet = self._table in (_FOCALNET, _LARGE_FOCALNET)
        # Published norms of maps are numbered by stage, ours by map.
        stages = [int(m[1]) for name in inner_names if (m := _STAGE_NORM.match(name))]
        self._first_norm = 0 if all_norms else min(stages, default=0)
        self._first_map = min((int(m[1]) for name in inner_names if (m := _PYRAMID.match(name))), default=0)

    def name(self, name: str) -> str | None:
        """The new name, or None for an entry that a model computes itself or that repeats another entry."""
        inner_name = name.removeprefix(PREFIX)
        if match := _TORCHVISION.match(inner_name):
            return f"{PREFIX}model.{inner_name[match.end() :]}"
        inner_name = inner_name.removeprefix("0.")
        if re.match(r"(stem|res\d)\.", inner_name):
            return f"{PREFIX}model.{resnet_name(inner_name)}"
        if match := _STAGE_NORM.match(inner_name):
            return f"{PREFIX}norms.{int(match[1]) - self._first_norm}.{inner_name[match.end() :]}"
        if match := _PYRAMID.match(inner_name):
            return f"{PREFIX}{self._pyramid(match)}{inner_name[match.end() :]}"
        if inner_name.startswith("net."):
            return None if _COMPUTED_VIT.match(inner_name) else f"{PREFIX}{inner_name.removeprefix('net.')}"
        if self._table is None:
            renamed = swin_name(inner_name)
            return None if renamed is None else f"{PREFIX}{renamed}"
        for pattern, replacement in self._table:
            new, count = re.subn(pattern, replacement, inner_name)
            if count:
                return f"{PREFIX}{new}"
        return f"{PREFIX}{inner_name}"

    def value(self, name: str, value: Tensor) -> Tensor:
        """The entry in the model's shape: FocalNet's linear layers are convolutions here."""
        linear = self._focalnet and value.ndim == 2 and _FOCALNET_LINEAR.search(name)
        return value[..., None, None] if linear else value

    def _pyramid(self, match: re.Match) -> str:
        """The name of a pyramid's layer; published layers hold a convolution and its norm, ours only one."""
        level, layer = int(match[1]), int(match[2])
        resizing = {2: 3, 3: 1, 4: 0, 5: 1}[level]  # layers before the two convolutions
        if layer >= resizing:
            layer = resizing + 2 * (layer - resizing) + (match[3] is not None)
        return f"scales.{level - self._first_map}.{layer}."


def _table(names: list[str]) -> Table | None:
    """The table of names for a backbone that single names do not identify; None for a Swin."""
    if any(name.startswith("downsample_layers.") for name in names):
        return _CONVNEXT
    if any(".modulation." in name for name in names):
        return _LARGE_FOCALNET if any(name.endswith(".gamma_1") for name in names) else _FOCALNET
    if any(".dcn." in name for name in names):
        return _INTERN_IMAGE
    return None
