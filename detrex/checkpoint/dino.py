"""Initialises Mask DINO from a DINO detector (arXiv 2203.03605), with everything that the two share.

Both have the same backbone, encoder, query selection and decoder layers, and both order levels finest first.
They differ in their heads. DINO has a class head and a box head for every decoder layer and another pair for
the encoder's proposals; Mask DINO has one pair for all of them. It gets the pair of the proposals, so that
Mask DINO selects the same queries as DINO, with the same boxes and classes. DINO's learned content queries
have no counterpart, because Mask DINO's queries start from the selected tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from detrex.checkpoint.family import HEAD_SET, SETS, FamilyNames

# The last linear map in every residual branch of a decoder layer; if it is zero, the layer changes nothing.
_BRANCH_ENDS = re.compile(
    r"^decoder\.layers\.(\d+)\."
    r"(self_attention\.out_proj|cross_attention\.output_proj|feed_forward\.linear2)\.(weight|bias)$"
)


def is_dino(names: Mapping[str, Tensor]) -> bool:
    """Whether a detector of the DETR family is a DINO: two-stage, with learned contents of its queries."""
    return "transformer.enc_output.weight" in names and "transformer.tgt_embed.weight" in names


def from_dino(state: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The entries that a Mask DINO takes from a DINO detector.

    Args:
        state: DINO's entries, from the detrex zoo or from its authors.
        model: a Mask DINO :class:`~detrex.modeling.Detector`. Decoder layers that DINO does not have are
            initialised so that they do not change queries; such layers of the encoder as usual.

    Returns:
        Entries for ``model``, and the names of DINO's entries that it does not use.
    """
    # Mask DINO also uses the backbone's first map.
    names = FamilyNames(state, all_norms=True)
    taken, unused = {}, []
    for name, value in state.items():
        new = names(name)
        if new is None:
            continue  # it repeats another entry
        heads = HEAD_SET.match(new)
        if new == "decoder.query_init.content.weight" or (heads and int(heads[1]) != names.layers):
            unused.append(name)
        else:
            taken[HEAD_SET.sub(f"{SETS}0.", new)] = names.backbone.value(name, value)
    for name, value in model.state_dict().items():
        if (match := _BRANCH_ENDS.match(name)) and int(match[1]) >= names.layers:
            taken[name] = torch.zeros_like(value, device="cpu")
    return taken, unused
