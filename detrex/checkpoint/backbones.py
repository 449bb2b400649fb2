"""Backbones that were published separately, and other code bases' names for timm's modules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from timm.layers import resize_rel_pos_bias_table_simple
from torch import Tensor, nn

_PREFIX = "backbone."
# Prefixes of wrappers: DistributedDataParallel, detectors, FPNs and self-supervised training.
_WRAPPERS = re.compile(r"^(?:(?:module|model|backbone|bottom_up|encoder|body)\.)*")
_BIAS_TABLE = "relative_position_bias_table"

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

# Published Swins reduce the map at the end of a stage, timm's at the start of the next stage.
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

    Other names are returned unchanged.
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
        a model computes itself. Other names, such as a classifier's, are returned unchanged.
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


# Detectron's ResNet, as Caffe2 names it; batch norms are scale and bias.
_CAFFE2_RESNET = (
    (r"^conv1_", "conv1."),
    (r"^res_conv1_bn_", "bn1."),
    (r"^res(\d)_(\d+)_branch1_bn_", lambda m: f"layer{int(m[1]) - 1}.{m[2]}.downsample.1."),
    (r"^res(\d)_(\d+)_branch1_", lambda m: f"layer{int(m[1]) - 1}.{m[2]}.downsample.0."),
    (
        r"^res(\d)_(\d+)_branch2([abc])_bn_",
        lambda m: f"layer{int(m[1]) - 1}.{m[2]}.bn{'abc'.index(m[3]) + 1}.",
    ),
    (
        r"^res(\d)_(\d+)_branch2([abc])_",
        lambda m: f"layer{int(m[1]) - 1}.{m[2]}.conv{'abc'.index(m[3]) + 1}.",
    ),
)
_CAFFE2_FIELDS = {"w": "weight", "s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}


def _caffe2_name(name: str) -> str | None:
    """timm's name for an entry of Detectron's ResNet, or None."""
    module, _, last = _renamed(name, _CAFFE2_RESNET).rpartition(".")
    return f"{module}.{_CAFFE2_FIELDS[last]}" if last in _CAFFE2_FIELDS else None


# Stages and the reductions between them alternate.
_TORCHVISION_SWIN = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"^features\.([1357])\.(\d+)\.mlp\.0\.", lambda m: f"{_torchvision_block(m)}mlp.fc1."),
    (r"^features\.([1357])\.(\d+)\.mlp\.3\.", lambda m: f"{_torchvision_block(m)}mlp.fc2."),
    (r"^features\.([1357])\.(\d+)\.", lambda m: _torchvision_block(m)),
    (r"^features\.([246])\.", lambda m: f"layers.{int(m[1]) // 2}.downsample."),
)


def _torchvision_block(match: re.Match) -> str:
    return f"layers.{int(match[1]) // 2}.blocks.{match[2]}."


def _torchvision_swin_name(name: str) -> str | None:
    """timm's name for an entry of torchvision's Swin."""
    return None if _COMPUTED_SWIN.search(name) else _renamed(name, _TORCHVISION_SWIN)


class _Format(NamedTuple):
    """Another code base's names for the entries of a backbone.

    ``name`` returns timm's name, or None for an entry that is not a weight. ``folded``: batch norms may have
    no statistics, because these are folded into weight and bias.
    """

    description: str
    name: Callable[[str], str | None]
    folded: bool = False
    note: str = ""


_BGR = "BGR images of 0 to 255, of which only the mean was subtracted"
_FORMATS = (
    _Format("classifier of timm or torchvision", lambda name: name),
    _Format("ResNet of detectron2", resnet_name, folded=True),
    _Format(
        "ResNet of Caffe2/MSRA (for BGR images, with stride in 1x1 convolutions)",
        _caffe2_name,
        folded=True,
        note=f"these weights were trained with {_BGR}, and MSRA's (R-50.pkl, R-101.pkl) with the stride "
        "in the first 1x1 convolution of a stage (STRIDE_IN_1X1), not in the 3x3 one as here: the features "
        "are not those of training. Weights derived from torchvision or timm fit",
    ),
    _Format("Swin of its authors or detectron2", swin_name),
    _Format("Swin of torchvision", _torchvision_swin_name),
)


@dataclass
class BackboneWeights:
    """Entries of a backbone under the detector's names.

    Attributes:
        format: the recognised format of the file.
        tensors: by name in the detector ("backbone.model.conv1.weight").
        unused: names, as in the file, of entries without a counterpart, such as a classifier.
        notes: for users of the weights.
    """

    format: str
    tensors: dict[str, Tensor]
    unused: list[str]
    notes: list[str] = field(default_factory=list)


def convert_backbone(state: Mapping[str, Tensor], model: nn.Module) -> BackboneWeights | None:
    """Recognises the weights of a backbone and gives them the names that they have in ``model``.

    Args:
        state: entries of a classifier or backbone by timm, torchvision (ResNets and Swin), detectron2
            (ResNets, with its own names or Caffe2's, and Swin) or Swin's authors, with or without the
            prefixes of wrappers and detectors. Shapes may differ; tables of relative positions for windows of
            a different size are interpolated.
        model: a detector with a ``backbone`` of timm's modules.

    Returns:
        The converted entries, or None if less than half of the file's or of the backbone's names are known.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        return None
    entries = backbone.state_dict()
    known = _keys(backbone, entries)
    prefixes = {name[: len(name) - len(_WRAPPERS.sub("", name))] for name in state} | {""}
    taken, form, prefix = max(
        ((_taken(state, p, f.name, known), f, p) for p in sorted(prefixes) for f in _FORMATS),
        # The same names can mean different modules in two formats; then shapes decide.
        key=lambda option: (
            sum(state[f].shape == entries[o].shape for o, f in option[0].items()),
            len(option[0]),
        ),
    )
    if not taken or 2 * len(taken) < min(len(entries), len(state)):
        return None
    tensors = {name: state[source] for name, source in taken.items()}
    notes = [form.note] if form.note else []
    if form.name is resnet_name and prefix.endswith("bottom_up."):
        notes.append(
            f"this is a detector's backbone; most of detectron2's detectors were trained with {_BGR}"
        )
    notes += _fit_bias_tables(tensors, backbone)
    _complete_norms(tensors, backbone, entries, folded=form.folded)
    return BackboneWeights(
        form.description,
        {_PREFIX + name: value for name, value in tensors.items()},
        _unused(state, set(taken.values())),
        notes,
    )


def _keys(backbone: Any, entries: Mapping[str, Tensor]) -> dict[str, str]:
    """The backbone's names by :func:`_key`; norms of outputs are numbered by stage, as in published Swins."""
    keys = {}
    for name in entries:
        if match := re.match(r"norms\.(\d+)\.", name):
            reductions = [info["reduction"] for info in backbone.model.feature_info.info]
            stage = reductions.index(backbone.strides[int(match[1])])
            keys[_key(f"norms.{stage}.{name[match.end() :]}")] = name
        else:
            keys[_key(name)] = name
    return keys


def _key(name: str) -> str:
    """A name without changes by timm's feature extractors: equal for "model.stages_0.x" and "stages.0.x"."""
    return re.sub(r"^(model\.)+", "", name).replace("_", ".")


def _taken(
    state: Mapping[str, Tensor], prefix: str, rename: Callable[[str], str | None], known: Mapping[str, str]
) -> dict[str, str]:
    """The file's names, by the corresponding names of the backbone."""
    taken = {}
    for source in state:
        name = rename(source.removeprefix(prefix)) if source.startswith(prefix) else None
        if name is not None and (target := known.get(_key(name))) is not None:
            taken[target] = source
    return taken


def _unused(state: Mapping[str, Tensor], used: set[str]) -> list[str]:
    """Unused entries, except those that models compute: counters of batch norms, indices of windows."""
    left = [name for name in state if name not in used]
    return [n for n in left if not n.endswith("num_batches_tracked") and not _COMPUTED_SWIN.search(n)]


def _fit_bias_tables(tensors: dict[str, Tensor], backbone: nn.Module) -> list[str]:
    """Interpolates Swin's tables of relative positions that were trained with windows of a different size."""
    fitted = set()
    for name in tensors:
        if not name.endswith(f".{_BIAS_TABLE}"):
            continue
        attention: Any = backbone.get_submodule(name.removesuffix(f".{_BIAS_TABLE}"))
        shape, table = attention.relative_position_bias_table.shape, tensors[name]
        side = math.isqrt(len(table))
        if table.shape == shape or table.shape[1:] != shape[1:] or side**2 != len(table):
            continue
        # Bicubically, like Swin's authors. timm interpolates linearly over a grid that widens outwards.
        table = resize_rel_pos_bias_table_simple(table.float(), attention.window_size, shape)
        tensors[name] = table.to(tensors[name].dtype)
        fitted.add(((side + 1) // 2, attention.window_size[0]))
    return [
        f"tables of relative positions were interpolated from windows of {old}x{old} to {new}x{new}"
        for old, new in sorted(fitted)
    ]


def _complete_norms(
    tensors: dict[str, Tensor], backbone: nn.Module, entries: Mapping[str, Tensor], *, folded: bool
) -> None:
    """Adds the entries of batch norms that their weights imply."""
    for name in entries:
        module, _, last = name.rpartition(".")
        if name in tensors or f"{module}.weight" not in tensors:
            continue
        like = tensors[f"{module}.weight"]
        if last == "num_batches_tracked":
            tensors[name] = torch.zeros_like(entries[name], device=like.device)
        elif folded and last == "running_mean":
            tensors[name] = torch.zeros_like(like)
        elif folded and last == "running_var":
            # Together with the norm's epsilon, this is a variance of 1.
            norm: Any = backbone.get_submodule(module)
            tensors[name] = torch.ones_like(like) - norm.eps
