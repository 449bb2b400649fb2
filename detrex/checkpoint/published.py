"""Converts weights of the published Mask DINO to this toolbox's names, and back.

Names differ, and so does the order of levels: here, levels are always finest first, while the published pixel
decoder has an order that depends on its configuration, and its decoder has the reverse order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from detrex.checkpoint.backbones import detectron2_resnet_name, detectron2_swin_name, resnet_name, swin_name
from detrex.checkpoint.renaming import Renaming

_PIXEL = "sem_seg_head.pixel_decoder."
_ENCODER = f"{_PIXEL}transformer.encoder.layers.#."
_PREDICTOR = "sem_seg_head.predictor."
_DECODER = f"{_PREDICTOR}decoder.layers.#."

_HEADS = Renaming(
    [
        (f"{_PIXEL}input_proj.", "encoder.projections."),
        (f"{_PIXEL}transformer.level_embed", "encoder.level_embed"),
        (f"{_ENCODER}self_attn.", "encoder.layers.#.attention."),
        (f"{_ENCODER}norm1.", "encoder.layers.#.norm."),
        (f"{_ENCODER}linear1.", "encoder.layers.#.feed_forward.linear1."),
        (f"{_ENCODER}linear2.", "encoder.layers.#.feed_forward.linear2."),
        (f"{_ENCODER}norm2.", "encoder.layers.#.feed_forward.norm."),
        (f"{_PIXEL}adapter_1.norm.", "pixel_head.lateral.1."),
        (f"{_PIXEL}adapter_1.", "pixel_head.lateral.0."),
        (f"{_PIXEL}layer_1.norm.", "pixel_head.fusion.1."),
        (f"{_PIXEL}layer_1.", "pixel_head.fusion.0."),
        (f"{_PIXEL}mask_features.", "pixel_head.pixel_embed."),
        (f"{_PREDICTOR}enc_output_norm.", "decoder.query_init.norm."),
        (f"{_PREDICTOR}enc_output.", "decoder.query_init.projection."),
        (f"{_PREDICTOR}query_feat.", "decoder.query_init.content."),
        (f"{_PREDICTOR}query_embed.", "decoder.query_init.reference."),
        (f"{_PREDICTOR}class_embed.", "decoder.heads.sets.0.classes."),
        (f"{_PREDICTOR}mask_embed.", "decoder.heads.sets.0.mask."),
        (f"{_PREDICTOR}_bbox_embed.", "decoder.heads.sets.0.box."),
        (f"{_PREDICTOR}decoder_norm.", "decoder.heads.norm."),
        (f"{_PREDICTOR}label_enc.", "denoising.label_embed."),
        (f"{_PREDICTOR}decoder.ref_point_head.", "decoder.position.encoder."),
        (f"{_DECODER}self_attn.", "decoder.layers.#.self_attention."),
        (f"{_DECODER}norm2.", "decoder.layers.#.self_norm."),
        (f"{_DECODER}cross_attn.", "decoder.layers.#.cross_attention."),
        (f"{_DECODER}norm1.", "decoder.layers.#.cross_norm."),
        (f"{_DECODER}linear1.", "decoder.layers.#.feed_forward.linear1."),
        (f"{_DECODER}linear2.", "decoder.layers.#.feed_forward.linear2."),
        (f"{_DECODER}norm3.", "decoder.layers.#.feed_forward.norm."),
    ]
)
_BACK = _HEADS.inverse()
_LANGUAGE = f"{_PREDICTOR}lang_encoder."
_TEXT_BLOCK = f"{_LANGUAGE}lang_encoder.resblocks.#."
# Entries that OpenSeeD has in addition, and in place of Mask DINO's classifier and label embedding.
_TEXT = Renaming(
    [
        (f"{_PREDICTOR}class_embed", "decoder.heads.sets.0.classes.projection"),
        (f"{_PREDICTOR}lang_mapper", "denoising.label_embed.mapper"),
        (f"{_LANGUAGE}lang_proj", "text.projection"),
        (f"{_LANGUAGE}logit_scale", "text.logit_scale"),
        (f"{_LANGUAGE}lang_encoder.positional_embedding", "text.position"),
        (f"{_LANGUAGE}lang_encoder.token_embedding.", "text.tokens."),
        (f"{_LANGUAGE}lang_encoder.ln_final.", "text.norm."),
        (f"{_TEXT_BLOCK}attn.", "text.layers.#.self_attn."),
        (f"{_TEXT_BLOCK}ln_1.", "text.layers.#.norm1."),
        (f"{_TEXT_BLOCK}ln_2.", "text.layers.#.norm2."),
        (f"{_TEXT_BLOCK}mlp.c_fc.", "text.layers.#.linear1."),
        (f"{_TEXT_BLOCK}mlp.c_proj.", "text.layers.#.linear2."),
        (f"{_PREDICTOR}query_feat.", "decoder.query_init.stuff_content."),
        (f"{_PREDICTOR}query_embed.", "decoder.query_init.stuff_reference."),
    ]
)
_TEXT_BACK = _TEXT.inverse()
# Entries that Semantic-SAM has in place of Mask DINO's classifier and queries.
_PROMPTS = Renaming(
    [
        (f"{_PREDICTOR}iou_prediction_head.", "decoder.heads.sets.0.classes."),
        (f"{_PREDICTOR}label_enc.", "prompts.label."),
        (f"{_PREDICTOR}pb_embedding.", "prompts.kinds."),
        (f"{_PREDICTOR}mask_tokens.", "prompts.tokens."),
    ]
)
_PROMPTS_BACK = _PROMPTS.inverse()
# Further entries of published Semantic-SAM files, which their model multiplies by 0: shapes by name.
_UNUSED_WITH_PROMPTS = {
    f"{_PREDICTOR}lang_mapper": (512, 256),
    f"{_PREDICTOR}class_embed": (256, 512),
    f"{_PREDICTOR}class_embed_part": (256, 512),
}

# Entries that repeat others (one box head serves all layers; the decoder's norm is decoder_norm) or that
# follow from the configuration.
_REPEATED = re.compile(
    rf"^{re.escape(_PREDICTOR)}(decoder\.)?bbox_embed\.|^{re.escape(_PREDICTOR)}decoder\.norm\."
    r"|^criterion(_\w+)?\.empty_weight$"
)
_OUR_SWIN = re.compile(r"^(patch_embed|layers_\d|norms)\b")
# Weight of "no object" in the published criterion, which stores it whether it is used or not.
_NO_OBJECT_WEIGHT = 0.1


def is_published(names: Mapping[str, Tensor]) -> bool:
    """Whether entries belong to a published Mask DINO."""
    return any(name.startswith(_PREDICTOR) for name in names) and f"{_PIXEL}mask_features.weight" in names


class Kind(Enum):
    """Published models that share the names of Mask DINO's parts, with tables for their further entries."""

    MASK_DINO = "Mask DINO"
    OPENSEED = "OpenSeeD"
    SEMANTIC_SAM = "Semantic-SAM"

    @property
    def tables(self) -> tuple[Renaming, Renaming] | None:
        """The tables from published names to this toolbox's names, and back."""
        if self is Kind.OPENSEED:
            return _TEXT, _TEXT_BACK
        return (_PROMPTS, _PROMPTS_BACK) if self is Kind.SEMANTIC_SAM else None


def kind_of(names: Iterable[str]) -> Kind:
    """The kind of model that published entries belong to."""
    known = set(names)
    if f"{_PREDICTOR}mask_tokens.weight" in known:
        return Kind.SEMANTIC_SAM
    return Kind.OPENSEED if any(name.startswith(_LANGUAGE) for name in known) else Kind.MASK_DINO


def published_name(name: str, kind: Kind = Kind.MASK_DINO) -> str | None:
    """This toolbox's name for a published entry, or None if the entry repeats another.

    An entry that does not belong to a published Mask DINO keeps its name.

    Args:
        name: of the entry.
        kind: of the model.
    """
    if _REPEATED.search(name) or (kind is Kind.SEMANTIC_SAM and name in _UNUSED_WITH_PROMPTS):
        return None
    if name.startswith("backbone."):
        return backbone_name(name)
    special = kind.tables[0](name) if kind.tables else None
    return special or _HEADS(name) or name


def backbone_name(name: str) -> str | None:
    """This toolbox's name for an entry ``backbone.*`` of a detector with detectron2's ResNet or Swin.

    None for an index or mask that the backbone computes itself.
    """
    inner_name = name.removeprefix("backbone.")
    if re.match(r"(stem|res\d)\.", inner_name):
        return f"backbone.model.{resnet_name(inner_name)}"
    renamed = swin_name(inner_name)
    return None if renamed is None else f"backbone.{renamed}"


def from_published(state: Mapping[str, Tensor], num_heads: int = 8) -> dict[str, Tensor]:
    """Converts the published ``model`` state dict.

    Args:
        state: entries as published.
        num_heads: attention heads of encoder and decoder layers.

    Returns:
        Entries for a :class:`~detrex.modeling.Detector` of the same settings.

    Raises:
        ValueError: if the attention projections do not have that many heads.
    """
    kind = kind_of(state)
    renamed = ((published_name(name, kind), value) for name, value in state.items())
    converted = {name: value for name, value in renamed if name is not None}
    prefix = "encoder." if coarsest_first(state) else "decoder."
    return _reverse_levels(converted, prefix, num_heads)


def coarsest_first(state: Mapping[str, Tensor]) -> bool:
    """Whether the published pixel decoder of these entries has its coarsest level first.

    Coarser maps of the backbone have more channels, and their projections are in the order of levels.
    """
    widths = [w.shape[1] for w in _projections(state, f"{_PIXEL}input_proj.") if w.shape[-1] == 1]
    return len(widths) > 1 and widths[0] > widths[-1]


def to_published(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The inverse of :func:`from_published`: the published ``model`` state dict.

    Args:
        state: entries of ``model``.
        model: a Mask DINO :class:`~detrex.modeling.Detector`; its configuration tells what the entries do
            not: heads, classes, and the order of levels (anchors grow in the order of the published decoder).

    Raises:
        ValueError: for a backbone other than ResNet or Swin, which no published Mask DINO has.
    """
    prefix = "encoder." if _published_coarsest_first(model) else "decoder."
    ordered = _reverse_levels(state, prefix, model.decoder.layers[0].cross_attention.num_heads)
    kind = _kind_of_model(model)
    out = {_name_back(name, kind): value for name, value in ordered.items()}
    _add_repeated(out, layers=len(model.decoder.layers))
    if kind is Kind.SEMANTIC_SAM:
        out |= {name: torch.zeros(shape) for name, shape in _UNUSED_WITH_PROMPTS.items()}
        return out
    for criterion, classes in _criteria(model).items():
        weight = torch.ones(classes + 1)
        weight[-1] = _NO_OBJECT_WEIGHT
        out[f"{criterion}.empty_weight"] = weight
    return out


def _criteria(model: Any) -> dict[str, int]:
    """The number of classes in each of the published model's criteria, by name."""
    if not hasattr(model, "text"):
        return {"criterion": model.num_classes}
    # The classes in training, whatever words the model looks for now.
    return {"criterion_coco": 133, "criterion_o365": 365} if model.others else {"criterion": 133}


def _published_coarsest_first(model: Any) -> bool:
    sizes = getattr(model.decoder.query_init, "anchor_sizes", None)
    # Models with learned queries have no anchors; the published ones take the coarsest level first.
    return sizes is None or list(sizes) == sorted(sizes)


def _kind_of_model(model: Any) -> Kind:
    if hasattr(model, "prompts"):
        return Kind.SEMANTIC_SAM
    return Kind.OPENSEED if hasattr(model, "text") else Kind.MASK_DINO


def _name_back(name: str, kind: Kind) -> str:
    if not name.startswith("backbone."):
        special = kind.tables[1](name) if kind.tables else None
        return special or _BACK(name) or name
    inner_name = name.removeprefix("backbone.model.").removeprefix("backbone.")
    if _OUR_SWIN.match(inner_name):
        return f"backbone.{detectron2_swin_name(name.removeprefix('backbone.'))}"
    return f"backbone.{detectron2_resnet_name(inner_name)}"


def _add_repeated(out: dict[str, Tensor], layers: int) -> None:
    """Entries that the published model stores several times, or that follow from others."""
    for name, value in list(out.items()):
        if name.startswith(f"{_PREDICTOR}_bbox_embed."):
            rest = name.removeprefix(f"{_PREDICTOR}_bbox_embed.")
            for i in range(layers):
                out[f"{_PREDICTOR}bbox_embed.{i}.{rest}"] = value
                out[f"{_PREDICTOR}decoder.bbox_embed.{i}.{rest}"] = value
        elif name.startswith(f"{_PREDICTOR}decoder_norm."):
            out[name.replace("decoder_norm.", "decoder.norm.")] = value
        elif name.endswith("relative_position_bias_table"):
            out[name.replace("bias_table", "index")] = _relative_positions(
                (round(len(value) ** 0.5) + 1) // 2
            )


def _relative_positions(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens in a window (Swin, arXiv 2103.14030): (w^2, w^2)."""
    y, x = (c.flatten() for c in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    return (y[:, None] - y + window - 1) * (2 * window - 1) + (x[:, None] - x + window - 1)


def _reverse_levels(state: Mapping[str, Tensor], prefix: str, heads: int) -> dict[str, Tensor]:
    """Reverses the order of levels in the entries under ``prefix``."""
    levels = len(state["encoder.level_embed"])
    # Levels that are made from the backbone's coarsest map have 3x3 projections, which always come last.
    direct = sum(w.shape[-1] == 1 for w in _projections(state, "encoder.projections."))
    out = {}
    for name, value in state.items():
        new_name, new_value = name, value
        if name.startswith(prefix):
            if match := re.match(r"^(encoder\.projections\.)(\d+)(\..*)$", name):
                number = int(match[2])
                new_name = f"{match[1]}{direct - 1 - number if number < direct else number}{match[3]}"
            elif name.endswith("level_embed"):
                new_value = value.flip(0)
            elif match := re.search(r"\.(sampling_offsets|attention_weights)\.", name):
                new_value = _reverse_attention(value, levels, heads, name)
        out[new_name] = new_value
    return out


def _projections(state: Mapping[str, Tensor], prefix: str) -> list[Tensor]:
    """Weights of the convolutions that make the levels, in the order of their numbers."""
    numbers = sorted(
        int(match[1])
        for name in state
        if (match := re.fullmatch(rf"{re.escape(prefix)}(\d+)\.0\.weight", name))
    )
    return [state[f"{prefix}{number}.0.weight"] for number in numbers]


def _reverse_attention(value: Tensor, levels: int, heads: int, name: str) -> Tensor:
    """Reverses levels in an offset or weight projection, whose rows are (head, level, point[, xy])."""
    if len(value) % (heads * levels):
        raise ValueError(f"{name}: {len(value)} rows do not divide into {heads} heads x {levels} levels")
    return value.unflatten(0, (heads, levels, -1)).flip(1).reshape(value.shape)
