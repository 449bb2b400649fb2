"""Recognises whose entries a file holds, and gives them this toolbox's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detrex.checkpoint.backbones import convert_backbone
from detrex.checkpoint.dino import from_dino, is_dino
from detrex.checkpoint.family import from_family, is_family, is_original, with_classes
from detrex.checkpoint.published import coarsest_first, from_published, is_published, kind_of

_STEP_COUNTER = ".num_batches_tracked"


@dataclass
class Converted:
    """Entries under this toolbox's names.

    Attributes:
        format: the recognised format of the file.
        tensors: by name.
        unused: names, as in the file, of entries that have no counterpart.
        notes: for users of the weights.
    """

    format: str
    tensors: Mapping[str, Tensor]
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def convert(tensors: Mapping[str, Tensor], model: nn.Module) -> Converted:
    """Recognises entries by their names and converts them for ``model``.

    Known are this toolbox's own weights, the published Mask DINO, detectors of the DETR family (of the detrex
    zoo, and of the authors of DETR, Deformable DETR and DINO), and backbones of timm, torchvision, detectron2
    and Swin's authors. Unknown entries keep their names.

    Trained batch norms count their steps, frozen ones do not, which makes no difference in evaluation:
        counters
    that ``model`` does not have are left out, and those that the file does not have start at 0.
    """
    converted = _convert(tensors, model)
    converted.tensors = _with_step_counters(converted.tensors, model)
    return converted


def _convert(tensors: Mapping[str, Tensor], model: nn.Module) -> Converted:
    if is_published(tensors):
        notes = _anchor_notes(model, ascending=coarsest_first(tensors), whose="the published model")
        name = f"published {kind_of(tensors).value}"
        return Converted(name, from_published(tensors, _num_heads(model)), notes=notes)
    if is_family(tensors):
        return _convert_family(tensors, model)
    if not any(name in tensors for name in model.state_dict()):
        backbone = convert_backbone(tensors, model)
        if backbone is not None:
            return Converted(backbone.format, backbone.tensors, backbone.unused, backbone.notes)
    return Converted("detrex weights", tensors)


def _with_step_counters(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    expected = model.state_dict()
    fitted = {n: t for n, t in tensors.items() if not n.endswith(_STEP_COUNTER) or n in expected}
    for name in expected:
        statistics = name.removesuffix(_STEP_COUNTER) + ".running_mean"
        if name.endswith(_STEP_COUNTER) and name not in fitted and statistics in fitted:
            fitted[name] = torch.tensor(0)
    return fitted


def _convert_family(tensors: Mapping[str, Tensor], model: nn.Module) -> Converted:
    if is_dino(tensors) and is_mask_dino(model):
        taken, unused = from_dino(tensors, model)
        notes = _anchor_notes(model, ascending=True, whose="DINO")
        converted = Converted("DINO detector", taken, unused, notes)
    else:
        shared = getattr(_heads(model), "num_sets", 1) == 1
        converted = Converted("DETR-family detector", from_family(tensors, shared))
    if not is_original(tensors):
        return converted
    class_score = getattr(model, "class_score", None)
    no_object = class_score is not None and class_score.num_logits(1) > 1
    converted.tensors, notes = with_classes(converted.tensors, getattr(model, "num_classes", 0), no_object)
    if is_dino(tensors):
        notes.append(
            "DINO's authors encode positions with temperature 20, the model's encoder with 10000: it needs "
            "some training before it does as well"
        )
    converted.notes += notes
    return converted


def is_mask_dino(model: nn.Module) -> bool:
    """Whether the encoder's proposals and all decoder layers share one set of heads, as in Mask DINO."""
    return getattr(_heads(model), "norm_again", False)


def _heads(model: nn.Module) -> nn.Module | None:
    return getattr(getattr(model, "decoder", None), "heads", None)


def _num_heads(model: nn.Module) -> int:
    """Number of heads in deformable attention; that of all published models if ``model`` has none."""
    layers: Iterator[Any] = (m for m in model.modules() if hasattr(m, "sampling_offsets"))
    return next((layer.num_heads for layer in layers), 8)


def _anchor_notes(model: nn.Module, *, ascending: bool, whose: str) -> list[str]:
    """A warning if the model's anchors are in the opposite order of levels from those in training."""
    sizes = list(getattr(getattr(getattr(model, "decoder", None), "query_init", None), "anchor_sizes", ()))
    expected = sorted(sizes, reverse=not ascending)
    if sizes == expected:
        return []
    return [
        f"{whose} was trained with anchors of the sizes {expected}, finest level first, but the model has "
        f"{sizes}: set model.decoder.query_init.anchor_sizes={expected}"
    ]
