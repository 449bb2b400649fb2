"""From a DINO detector (arXiv 2203.03605) to Mask DINO: everything that the two share.

Both have the same backbone, encoder, query selection and decoder layers, and both take levels finest first.
They differ in their heads. DINO has a class and a box head for every decoder layer and another pair for the
encoder's proposals; Mask DINO has one pair for all of them. It gets the pair of the proposals: with it, the
queries that Mask DINO selects, and their boxes and classes, are those of DINO. DINO's learned content queries
have no counterpart, since Mask DINO's queries start from the selected tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from detrex.checkpoint.published import backbone_name
from detrex.checkpoint.renaming import Renaming

_ENCODER = "transformer.encoder.layers.#."
_DECODER = "transformer.decoder.layers.#."

_NAMES = Renaming(
    [
        ("neck.convs.#.conv.", "encoder.projections.#.0."),
        ("neck.convs.#.norm.", "encoder.projections.#.1."),
        ("transformer.level_embeds", "encoder.level_embed"),
        (f"{_ENCODER}attentions.0.", "encoder.layers.#.attention."),
        (f"{_ENCODER}norms.0.", "encoder.layers.#.norm."),
        (f"{_ENCODER}ffns.0.layers.0.0.", "encoder.layers.#.feed_forward.linear1."),
        (f"{_ENCODER}ffns.0.layers.1.", "encoder.layers.#.feed_forward.linear2."),
        (f"{_ENCODER}norms.1.", "encoder.layers.#.feed_forward.norm."),
        ("transformer.enc_output_norm.", "decoder.query_init.norm."),
        ("transformer.enc_output.", "decoder.query_init.projection."),
        (f"{_DECODER}attentions.0.attn.", "decoder.layers.#.self_attention."),
        (f"{_DECODER}norms.0.", "decoder.layers.#.self_norm."),
        (f"{_DECODER}attentions.1.", "decoder.layers.#.cross_attention."),
        (f"{_DECODER}norms.1.", "decoder.layers.#.cross_norm."),
        (f"{_DECODER}ffns.0.layers.0.0.", "decoder.layers.#.feed_forward.linear1."),
        (f"{_DECODER}ffns.0.layers.1.", "decoder.layers.#.feed_forward.linear2."),
        (f"{_DECODER}norms.2.", "decoder.layers.#.feed_forward.norm."),
        ("transformer.decoder.ref_point_head.", "decoder.position.encoder."),
        ("transformer.decoder.norm.", "decoder.heads.norm."),
        ("label_enc.", "denoising.label_embed."),
    ]
)
_EXTRA_LEVEL = re.compile(r"^neck\.extra_convs\.(\d+)\.(conv|norm)\.(.*)$")
_HEAD = re.compile(r"^(class_embed|bbox_embed)\.(\d+)\.(.*)$")
_HEADS = {"class_embed": "decoder.heads.sets.0.classes.", "bbox_embed": "decoder.heads.sets.0.box."}
# The last map of every residual branch of a decoder layer; with zeros there, a layer changes nothing.
_BRANCH_ENDS = re.compile(
    r"^decoder\.layers\.(\d+)\."
    r"(self_attention\.out_proj|cross_attention\.output_proj|feed_forward\.linear2)\.(weight|bias)$"
)


def is_dino(names: Mapping[str, Tensor]) -> bool:
    """Whether entries are those of a two-stage DINO detector of the detrex zoo."""
    return "transformer.enc_output.weight" in names and "transformer.level_embeds" in names


def from_dino(state: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """What a Mask DINO takes over from a DINO detector.

    Args:
        state: DINO's entries.
        model: a Mask DINO :class:`~detrex.modeling.Detector`. Decoder layers that DINO has not are started
            so that they pass queries on unchanged, and those of its encoder in the usual way.

    Returns:
        Entries for ``model``, and the names of DINO's entries that it has no use for.
    """
    direct = sum(bool(re.fullmatch(r"neck\.convs\.\d+\.conv\.weight", name)) for name in state)
    last_head = max((int(match[2]) for name in state if (match := _HEAD.match(name))), default=-1)
    taken, unused = {}, []
    for name, value in state.items():
        new = _new_name(name, direct, last_head)
        if new is not None:
            taken[new] = value
        elif not name.startswith(("transformer.decoder.class_embed.", "transformer.decoder.bbox_embed.")):
            unused.append(name)  # the ones left out here repeat class_embed and bbox_embed
    numbers = [int(match[1]) for name in taken if (match := _BRANCH_ENDS.match(name))]
    layers = max(numbers, default=-1) + 1
    for name, value in model.state_dict().items():
        if (match := _BRANCH_ENDS.match(name)) and int(match[1]) >= layers:
            taken[name] = torch.zeros_like(value, device="cpu")
    return taken, unused


def _new_name(name: str, direct_levels: int, last_head: int) -> str | None:
    if match := _EXTRA_LEVEL.match(name):
        part = 0 if match[2] == "conv" else 1
        return f"encoder.projections.{direct_levels + int(match[1])}.{part}.{match[3]}"
    if match := _HEAD.match(name):
        return _HEADS[match[1]] + match[3] if int(match[2]) == last_head else None
    return backbone_name(name) if name.startswith("backbone.") else _NAMES(name)
