"""Weights of the published Mask DINO under this toolbox's names.

Only names and the order of levels differ: here levels are always finest first, while the published pixel
decoder takes them in an order that depends on its configuration, and its decoder in the reverse of that.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

_PIXEL = "sem_seg_head.pixel_decoder."
_PREDICTOR = "sem_seg_head.predictor."

_RENAMES = (
    # detectron2's ResNet to timm's
    (r"^backbone\.stem\.conv1\.norm\.", "backbone.model.bn1."),
    (r"^backbone\.stem\.conv1\.", "backbone.model.conv1."),
    (r"^backbone\.res(\d)\.(\d+)\.shortcut\.norm\.", lambda m: f"{_stage(m)}.downsample.1."),
    (r"^backbone\.res(\d)\.(\d+)\.shortcut\.", lambda m: f"{_stage(m)}.downsample.0."),
    (r"^backbone\.res(\d)\.(\d+)\.conv(\d)\.norm\.", lambda m: f"{_stage(m)}.bn{m[3]}."),
    (r"^backbone\.res(\d)\.(\d+)\.conv(\d)\.", lambda m: f"{_stage(m)}.conv{m[3]}."),
    # pixel decoder
    (rf"^{_PIXEL}input_proj\.", "pixel_decoder.projections."),
    (rf"^{_PIXEL}transformer\.level_embed$", "pixel_decoder.level_embed"),
    (rf"^{_PIXEL}transformer\.encoder\.layers\.", "pixel_decoder.layers."),
    (rf"^{_PIXEL}adapter_1\.norm\.", "pixel_decoder.lateral.1."),
    (rf"^{_PIXEL}adapter_1\.", "pixel_decoder.lateral.0."),
    (rf"^{_PIXEL}layer_1\.norm\.", "pixel_decoder.fusion.1."),
    (rf"^{_PIXEL}layer_1\.", "pixel_decoder.fusion.0."),
    (rf"^{_PIXEL}mask_features\.", "pixel_decoder.pixel_embed."),
    (r"^(pixel_decoder\.layers\.\d+)\.self_attn\.", r"\1.attention."),
    (r"^(pixel_decoder\.layers\.\d+)\.norm1\.", r"\1.norm."),
    (r"^(pixel_decoder\.layers\.\d+)\.norm2\.", r"\1.feed_forward.norm."),
    # decoder
    (rf"^{_PREDICTOR}enc_output_norm\.", "decoder.query_init.norm."),
    (rf"^{_PREDICTOR}enc_output\.", "decoder.query_init.projection."),
    (rf"^{_PREDICTOR}query_feat\.", "decoder.query_init.content."),
    (rf"^{_PREDICTOR}query_embed\.", "decoder.query_init.reference."),
    (rf"^{_PREDICTOR}class_embed\.", "decoder.heads.classes."),
    (rf"^{_PREDICTOR}mask_embed\.", "decoder.heads.mask."),
    (rf"^{_PREDICTOR}label_enc\.", "denoising.label_embed."),
    (rf"^{_PREDICTOR}_bbox_embed\.", "decoder.heads.box."),
    (rf"^{_PREDICTOR}decoder_norm\.", "decoder.heads.norm."),
    (rf"^{_PREDICTOR}decoder\.ref_point_head\.", "decoder.box_position."),
    (rf"^{_PREDICTOR}decoder\.layers\.", "decoder.layers."),
    (r"^(decoder\.layers\.\d+)\.self_attn\.", r"\1.self_attention."),
    (r"^(decoder\.layers\.\d+)\.cross_attn\.", r"\1.cross_attention."),
    (r"^(decoder\.layers\.\d+)\.norm1\.", r"\1.cross_norm."),
    (r"^(decoder\.layers\.\d+)\.norm2\.", r"\1.self_norm."),
    (r"^(decoder\.layers\.\d+)\.norm3\.", r"\1.feed_forward.norm."),
    (r"^((?:pixel_)?decoder\.layers\.\d+)\.linear(\d)\.", r"\1.feed_forward.linear\2."),
)

# Entries that repeat others (one box head serves all layers; the decoder's norm is decoder_norm) or that
# are no weights of the model.
_REPEATED = re.compile(rf"^{_PREDICTOR}(decoder\.)?bbox_embed\.|^{_PREDICTOR}decoder\.norm\.|^criterion\.")


def _stage(match: re.Match) -> str:
    return f"backbone.model.layer{int(match[1]) - 1}.{match[2]}"


def published_name(name: str) -> str | None:
    """This toolbox's name for a published entry, or None where the entry repeats another.

    An entry that is not of a published Mask DINO keeps its name.
    """
    if _REPEATED.search(name):
        return None
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Converts the published ``model`` state dict.

    Args:
        state: entries as published.

    Returns:
        Entries for a :class:`~detrex.modeling.Detector` of the same settings.
    """
    converted = {published_name(name): value for name, value in state.items()}
    converted.pop(None, None)
    levels = len(converted["pixel_decoder.level_embed"])
    if _coarsest_first(converted):
        return _reverse_levels(converted, "pixel_decoder.", levels)
    return _reverse_levels(converted, "decoder.", levels)


def _coarsest_first(state: dict[str, Tensor]) -> bool:
    """Whether the pixel decoder's first level is its coarsest: backbones widen from level to level."""
    widths = [state[f"pixel_decoder.projections.{i}.0.weight"].shape[1] for i in (0, 1)]
    return widths[0] > widths[1]


def _reverse_levels(state: dict[str, Tensor], prefix: str, levels: int) -> dict[str, Tensor]:
    """Entries under ``prefix`` with their levels in the opposite order."""
    out = {}
    for name, value in state.items():
        new_name, new_value = name, value
        if name.startswith(prefix):
            if match := re.match(r"^(pixel_decoder\.projections\.)(\d+)(\..*)$", name):
                new_name = f"{match[1]}{levels - 1 - int(match[2])}{match[3]}"
            elif name.endswith("level_embed"):
                new_value = value.flip(0)
            elif match := re.search(r"\.(sampling_offsets|attention_weights)\.", name):
                new_value = _reverse_attention(value, levels, pairs=match[1] == "sampling_offsets")
        out[new_name] = new_value
    return out


def _reverse_attention(value: Tensor, levels: int, pairs: bool) -> Tensor:
    """Rows of an offset or weight projection are ordered (head, level, point[, xy])."""
    heads = _heads(len(value), levels, 2 if pairs else 1)
    by_level = value.unflatten(0, (heads, levels, -1))
    return torch.flip(by_level, [1]).reshape(value.shape)


def _heads(rows: int, levels: int, numbers: int) -> int:
    """Published models have 8 heads."""
    heads = 8
    if rows % (heads * levels * numbers):
        raise ValueError(
            f"{rows} rows of an attention projection do not divide into {heads} heads x {levels} levels"
        )
    return heads
