"""Converts weights of the DETR family, from the detrex zoo and from the original authors, to our names.

Both kinds order levels finest first, as here. There are three tables of names: those that the two kinds
share, those of the zoo, and those of the original authors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from detrex.checkpoint.detector_backbones import DetectorBackbone
from detrex.checkpoint.renaming import Renaming
from detrex.data import category_file, read_categories

_ENCODER = "transformer.encoder.layers.#."
_DECODER = "transformer.decoder.layers.#."
_OUR_ENCODER = "encoder.layers.#."
_OUR_DECODER = "decoder.layers.#."
_QUERIES = "decoder.query_init."

_SHARED = [
    ("class_embed.#.", "decoder.heads.sets.#.classes."),
    ("class_embed.", "decoder.heads.sets.0.classes."),
    ("bbox_embed.#.", "decoder.heads.sets.#.box."),
    ("bbox_embed.", "decoder.heads.sets.0.box."),
    ("query_embed.", f"{_QUERIES}position."),
    ("transformer.reference_points.", f"{_QUERIES}point."),
    ("transformer.tgt_embed.", f"{_QUERIES}content."),
    ("transformer.enc_output_norm.", f"{_QUERIES}norm."),
    ("transformer.enc_output.", f"{_QUERIES}projection."),
    ("transformer.pos_trans_norm.", f"{_QUERIES}box_norm."),
    ("transformer.pos_trans.", f"{_QUERIES}box_projection."),
    ("transformer.pix_trans_norm.", f"{_QUERIES}token_norm."),
    ("transformer.pix_trans.", f"{_QUERIES}token_projection."),
    ("tgt_embed.", f"{_QUERIES}content."),
    ("refpoint_embed.", f"{_QUERIES}reference."),
    ("transformer.decoder.norm.", "decoder.heads.norm."),
    ("label_enc.", "denoising.label_embed."),
    ("denoising_generator.label_encoder.", "denoising.label_embed."),
    ("transformer.patterns.", f"{_QUERIES}patterns."),
    ("transformer.sampler.score_pred_net.", "encoder.sampler.score."),
    ("transformer.sampler.k_proj.", "encoder.sampler.pool_weight."),
    ("transformer.sampler.v_proj.", "encoder.sampler.pool_value."),
]
_ZOO = [
    ("input_proj.", "encoder.projection."),
    ("neck.convs.#.conv.", "encoder.projections.#.0."),
    ("neck.convs.#.norm.", "encoder.projections.#.1."),
    ("transformer.level_embeds", "encoder.level_embed"),
    ("transformer.encoder.query_scale.", "encoder.position_scale."),
    (f"{_ENCODER}attentions.0.attn.", f"{_OUR_ENCODER}attention."),
    (f"{_ENCODER}attentions.0.", f"{_OUR_ENCODER}attention."),
    (f"{_ENCODER}norms.0.", f"{_OUR_ENCODER}norm."),
    (f"{_ENCODER}ffns.0.layers.0.0.", f"{_OUR_ENCODER}feed_forward.linear1."),
    (f"{_ENCODER}ffns.0.layers.0.1.", f"{_OUR_ENCODER}feed_forward.activation."),
    (f"{_ENCODER}ffns.0.layers.1.", f"{_OUR_ENCODER}feed_forward.linear2."),
    (f"{_ENCODER}norms.1.", f"{_OUR_ENCODER}feed_forward.norm."),
    ("anchor_box_embed.", f"{_QUERIES}reference."),
    ("transformer.decoder.post_norm_layer.", "decoder.heads.norm."),
    ("transformer.decoder.query_scale.", "decoder.position.scale."),
    ("transformer.decoder.ref_anchor_head.", "decoder.position.size."),
    (f"{_DECODER}norms.0.", f"{_OUR_DECODER}self_norm."),
    (f"{_DECODER}norms.1.", f"{_OUR_DECODER}cross_norm."),
    (f"{_DECODER}ffns.0.layers.0.0.", f"{_OUR_DECODER}feed_forward.linear1."),
    (f"{_DECODER}ffns.0.layers.0.1.", f"{_OUR_DECODER}feed_forward.activation."),
    (f"{_DECODER}ffns.0.layers.1.", f"{_OUR_DECODER}feed_forward.linear2."),
    (f"{_DECODER}norms.2.", f"{_OUR_DECODER}feed_forward.norm."),
]
for _number, _kind in enumerate(("self", "cross")):
    _theirs, _ours = f"{_DECODER}attentions.{_number}.", f"{_OUR_DECODER}{_kind}_attention."
    _ZOO += [
        (f"{_theirs}attn.", _ours),
        (f"{_theirs}query_content_proj.", f"{_ours}query_content."),
        (f"{_theirs}query_pos_proj.", f"{_ours}query_position."),
        (f"{_theirs}query_pos_sine_proj.", f"{_ours}query_spatial."),
        (f"{_theirs}key_content_proj.", f"{_ours}key_content."),
        (f"{_theirs}key_pos_proj.", f"{_ours}key_position."),
    ]
    _ZOO += [(f"{_theirs}out_proj.", f"{_ours}output.")]
_ORIGINAL = [
    ("input_proj.#.", "encoder.projections.#."),
    ("input_proj.", "encoder.projection."),
    ("transformer.level_embed", "encoder.level_embed"),
    (f"{_ENCODER}self_attn.", f"{_OUR_ENCODER}attention."),
    (f"{_ENCODER}norm1.", f"{_OUR_ENCODER}norm."),
    (f"{_ENCODER}linear1.", f"{_OUR_ENCODER}feed_forward.linear1."),
    (f"{_ENCODER}linear2.", f"{_OUR_ENCODER}feed_forward.linear2."),
    (f"{_ENCODER}norm2.", f"{_OUR_ENCODER}feed_forward.norm."),
    (f"{_DECODER}self_attn.", f"{_OUR_DECODER}self_attention."),
    (f"{_DECODER}multihead_attn.", f"{_OUR_DECODER}cross_attention."),
    (f"{_DECODER}cross_attn.", f"{_OUR_DECODER}cross_attention."),
    (f"{_DECODER}linear1.", f"{_OUR_DECODER}feed_forward.linear1."),
    (f"{_DECODER}linear2.", f"{_OUR_DECODER}feed_forward.linear2."),
    (f"{_DECODER}norm3.", f"{_OUR_DECODER}feed_forward.norm."),
]

_FOCUS = [
    ("transformer.alpha", "encoder.modulation"),
    ("transformer.enc_mask_predictor.layer1.", "encoder.foreground.features."),
    ("transformer.enc_mask_predictor.layer2.", "encoder.foreground.score."),
    (f"{_ENCODER}attentions.0.attn.", f"{_OUR_ENCODER}self_attention."),
    (f"{_ENCODER}attentions.1.", f"{_OUR_ENCODER}attention."),
    (f"{_ENCODER}norm2.", f"{_OUR_ENCODER}self_norm."),
]
_ANCHOR = [
    ("input_proj.#.", "encoder.projection.#."),
    ("transformer.encoder_layers.#.self_attn.", f"{_OUR_ENCODER}attention."),
    ("transformer.encoder_layers.#.norm1.", f"{_OUR_ENCODER}norm."),
    ("transformer.encoder_layers.#.ffn.norm2.", f"{_OUR_ENCODER}feed_forward.norm."),
    ("transformer.encoder_layers.#.ffn.", f"{_OUR_ENCODER}feed_forward."),
    ("transformer.decoder_layers.#.cross_attn.", f"{_OUR_DECODER}cross_attention."),
    ("transformer.decoder_layers.#.norm1.", f"{_OUR_DECODER}cross_norm."),
    ("transformer.decoder_layers.#.self_attn.", f"{_OUR_DECODER}self_attention."),
    ("transformer.decoder_layers.#.norm2.", f"{_OUR_DECODER}self_norm."),
    ("transformer.decoder_layers.#.ffn.norm2.", f"{_OUR_DECODER}feed_forward.norm."),
    ("transformer.decoder_layers.#.ffn.", f"{_OUR_DECODER}feed_forward."),
    ("transformer.pattern.", f"{_QUERIES}pattern."),
    ("transformer.position.", f"{_QUERIES}point."),
    ("transformer.adapt_pos2d.", "decoder.position.plane."),
    ("transformer.adapt_pos1d.", "decoder.position.axis."),
    ("transformer.class_embed.#.", "decoder.heads.sets.#.classes."),
    ("transformer.bbox_embed.#.", "decoder.heads.sets.#.box."),
]

_TRACKING = [
    ("position.", f"{_QUERIES}reference."),
    ("position_offset.", f"{_QUERIES}reference_offset."),
    ("query_embed.", f"{_QUERIES}content."),
    ("query_embed_offset.", f"{_QUERIES}content_offset."),
    ("track_embed.self_attn.", f"{_QUERIES}interaction.attention."),
    ("track_embed.norm1.", f"{_QUERIES}interaction.norm."),
    ("track_embed.norm2.", f"{_QUERIES}interaction.feed_forward.norm."),
    ("track_embed.linear_feat1.", f"{_QUERIES}interaction.update.linear1."),
    ("track_embed.linear_feat2.", f"{_QUERIES}interaction.update.linear2."),
    ("track_embed.norm_feat.", f"{_QUERIES}interaction.update.norm."),
    ("track_embed.", f"{_QUERIES}interaction.feed_forward."),
]

_TRACKING_MARK = "track_embed.self_attn.in_proj_weight"
_FOCUS_MARK = "transformer.enc_mask_predictor.layer1.0.weight"
_ANCHOR_MARK = "transformer.encoder_layers.0.self_attn.in_proj_weight"
_CONDITIONAL = "transformer.decoder.layers.0.attentions.1.query_content_proj.weight"
_DEFORMABLE = re.compile(
    r"^transformer\.decoder\.layers\.\d+\.(attentions\.1|cross_attn)\.sampling_offsets\."
)
_EXTRA_LEVEL = re.compile(r"^neck\.extra_convs\.(\d+)\.(conv|norm)\.(.*)$")
SETS = "decoder.heads.sets."
HEAD_SET = re.compile(rf"^{re.escape(SETS)}(\d+)\.")
_CLASS_HEAD = re.compile(rf"^{re.escape(SETS)}\d+\.classes\.")
_LABELS = "denoising.label_embed.weight"
_PROPOSAL_HEADS = re.compile(r"^transformer\.enc_out_(class|bbox)_embed\.(.*)$")
# Entries that repeat others, or follow from the configuration.
_REPEATED = re.compile(
    r"^transformer\.decoder\.(class|bbox)_embed\.|\.ffns\.\d+\.activation\.|^criterion\.empty_weight$"
    r"|^(transformer\.encoder\.)?enhance_MCSP(_layerlist)?\."
)


def is_family(names: Mapping[str, Tensor]) -> bool:
    """Whether entries belong to a detector of the detrex zoo, or of the authors of DETR or its successors."""
    return (
        is_original(names) or _ANCHOR_MARK in names or "transformer.encoder.layers.0.norms.0.weight" in names
    )


def is_original(names: Mapping[str, Tensor]) -> bool:
    """Whether entries have the names of DETR's authors, which authors of its successors also use."""
    return "transformer.encoder.layers.0.norm1.weight" in names


def from_family(state: Mapping[str, Tensor], shared_heads: bool = False) -> dict[str, Tensor]:
    """Converts a detector's entries; those that only repeat others are left out.

    Args:
        state: entries as published.
        shared_heads: whether all decoder layers share one set of heads. Some files have a copy of it for each
            layer.

    Returns:
        Entries for a :class:`~detrex.modeling.Detector` of the same settings. Entries without a counterpart
        keep their names.
    """
    names = FamilyNames(state)
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        new = names(name)
        if name == "query_embedding.weight" and "transformer.enc_output.weight" in state:
            out[f"{_QUERIES}content.weight"] = value  # H-DETR: positions come from proposals
        elif name == "query_embedding.weight" or (name == "query_embed.weight" and names.position_halves):
            position, content = value.chunk(2, 1)
            out |= {f"{_QUERIES}position.weight": position, f"{_QUERIES}content.weight": content}
        elif name == "denoising_generator.label_encoder.weight" and "tgt_embed.weight" not in state:
            # The last row is the content of matching queries, which have no labels.
            out |= {"denoising.label_embed.weight": value[:-1], f"{_QUERIES}content": value[-1]}
        elif new is not None:
            out[new] = names.backbone.value(name, value)
    return _without_copies(out) if shared_heads else out


def with_classes(
    entries: Mapping[str, Tensor], num_classes: int, no_object_class: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Reduces entries of the original authors to one row per class of the model, if the classes are COCO's.

    Their class heads have a row for each id up to COCO's last one, 90, of which 80 are in use. DETR's row for
    "no object" follows these, as it does here. DINO's embedding of labels has one more row, which stands for
    no label and is left out.

    Args:
        entries: under this toolbox's names.
        num_classes: of the model.
        no_object_class: whether the model's class heads have a last row for "no object".

    Returns:
        The entries, and notes on what was done.
    """
    heads = [value for name, value in entries.items() if _CLASS_HEAD.match(name)]
    if not heads:
        return dict(entries), []
    rows = len(heads[0]) - no_object_class
    ids = read_categories(category_file("coco_instance")).ids
    if _LABELS in entries:
        entries = {**entries, _LABELS: entries[_LABELS][:rows]}
    if rows != max(ids) + 1 or num_classes != len(ids):
        return dict(entries), []
    with_last = [*ids, rows] if no_object_class else list(ids)
    out = {}
    for name, value in entries.items():
        if _CLASS_HEAD.match(name):
            out[name] = value[with_last]
        else:
            out[name] = value[list(ids)] if name == _LABELS else value
    note = f"the file has rows for COCO's ids 0 to {max(ids)}; the model's {num_classes} classes took theirs"
    return out, [note]


def _without_copies(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries without further sets of heads that are equal to the first set."""
    kept = {}
    for name, value in entries.items():
        first = entries.get(HEAD_SET.sub(f"{SETS}0.", name))
        if not (HEAD_SET.match(name) and first is not None and first is not value and first.equal(value)):
            kept[name] = value
    return kept


def _whose(state: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """The table of names that belongs to the entries' authors alone."""
    if _ANCHOR_MARK in state:
        return _ANCHOR
    if _FOCUS_MARK in state:
        return [*_FOCUS, *_ZOO]
    names = _ORIGINAL if is_original(state) else _ZOO
    return [*_TRACKING, *names] if _TRACKING_MARK in state else names


class FamilyNames:
    """This toolbox's names for the entries of one file.

    Args:
        state: all entries, from which their authors are recognised.
        all_norms: whether the model has a norm for the backbone's first map, too, even if the file may not.

    Attributes:
        backbone: names of the backbone's entries.
        deformable: whether the decoder has deformable attention.
        position_halves: whether the embedding of queries holds both their position and their content.
        layers: number of decoder layers; if proposals have their own heads, these are the set of this number.
    """

    def __init__(self, state: Mapping[str, Tensor], all_norms: bool = False):
        self.backbone = DetectorBackbone(state, all_norms)
        self.deformable = any(_DEFORMABLE.match(name) for name in state)
        self.position_halves = self.deformable and _TRACKING_MARK not in state
        boxes = "anchor_box_embed.weight" in state or self.deformable
        point = "decoder.position.encoder." if boxes else f"{_QUERIES}point."
        value = "value" if _CONDITIONAL in state else "value_proj"
        cross = f"{_DECODER}attentions.1."
        special = [
            ("transformer.decoder.ref_point_head.", point),
            (f"{cross}value_proj.", f"{_OUR_DECODER}cross_attention.{value}."),
            (cross, f"{_OUR_DECODER}cross_attention."),
            (f"{_DECODER}attentions.0.value_proj.", f"{_OUR_DECODER}self_attention.value."),
        ]
        # Deformable DETR's first norm follows attention to the memory; DETR's follows attention among
        # queries.
        for number, kind in enumerate(("cross", "self") if self.deformable else ("self", "cross"), start=1):
            special.append((f"{_DECODER}norm{number}.", f"{_OUR_DECODER}{kind}_norm."))
        self._names = Renaming([*_whose(state), *_SHARED, *special])
        pattern = r"neck\.convs\.\d+\.conv\.weight"
        self._direct_levels = sum(bool(re.fullmatch(pattern, name)) for name in state)
        self.layers = 1 + max(
            (int(m[1]) for name in state if (m := re.match(r"transformer\.decoder\.layers\.(\d+)\.", name))),
            default=-1,
        )

    def __call__(self, name: str) -> str | None:
        """The new name; None for an entry that repeats another; the old name for an unknown entry."""
        if match := _EXTRA_LEVEL.match(name):
            part = 0 if match[2] == "conv" else 1
            return f"encoder.projections.{self._direct_levels + int(match[1])}.{part}.{match[3]}"
        if match := _PROPOSAL_HEADS.match(name):
            head = "classes" if match[1] == "class" else "box"
            return f"{SETS}{self.layers}.{head}.{match[2]}"
        if name.startswith("backbone."):
            return self.backbone.name(name)
        return None if _REPEATED.search(name) else self._names(name) or name
