"""How decoder queries start: from the best encoder tokens, or learned.

Shape letters: B images, S tokens, Q queries, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from detrex.layers import inverse_sigmoid
from detrex.modeling.heads import PredictionHeads
from detrex.structures import Prediction, Pyramid, boxes_from_masks

# Anchors with a centre or size this close to 0 or 1 are no proposals (Deformable DETR, arXiv 2010.04159).
ANCHOR_MARGIN = 0.01


@dataclass
class InitialQueries:
    """What the decoder starts from.

    Attributes:
        content: (B, Q, D).
        reference: (B, Q, 4) logits of normalised cxcywh boxes, without gradient where they are proposals.
        proposals: the prediction that selected them, supervised like a decoder layer; None if learned.
    """

    content: Tensor
    reference: Tensor
    proposals: Prediction | None


class TwoStageQueries(nn.Module):
    """The tokens with the highest class logits become queries (DINO's selection, with Mask DINO's boxes).

    Args:
        num_queries: Q; where there are fewer tokens, all of them are used.
        hidden_dim: D.
        anchor_sizes: side of the square anchors of each level, finest first, as a fraction of the image.
            The published decoder numbers its levels coarsest first when it doubles 0.05 from level to level,
            so its trained weights expect the *smallest* anchors at the coarsest level.
        box_init: boxes from the box head ("no") or from the proposals' masks: "mask2box" spans first to last
            pixel, "bitmask" reaches one pixel further, to the far edge of the last.

    Raises:
        ValueError: for another ``box_init``.
    """

    def __init__(
        self,
        num_queries: int = 300,
        hidden_dim: int = 256,
        anchor_sizes: Sequence[float] = (0.4, 0.2, 0.1, 0.05),
        box_init: Literal["no", "mask2box", "bitmask"] = "mask2box",
    ):
        super().__init__()
        if box_init not in ("no", "mask2box", "bitmask"):
            raise ValueError(f"box_init is '{box_init}'; choose 'no', 'mask2box' or 'bitmask'")
        self.num_queries, self.box_init = num_queries, box_init
        self.anchor_sizes = tuple(anchor_sizes)
        self.projection = nn.Linear(hidden_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)

    def forward(self, memory: Pyramid, pixel_embed: Tensor, heads: PredictionHeads) -> InitialQueries:
        """Selects queries from the encoded tokens.

        Args:
            memory: (B, S, D), as many levels as anchor sizes.
            pixel_embed: (B, mask_dim, H / 4, W / 4).
            heads: the decoder's own heads.
        """
        anchors, valid = self._anchors(memory)
        tokens = self.norm(self.projection(memory.tokens * valid[:, None]))
        score = heads.classes(tokens).detach().amax(-1)  # (B, S)
        best = score.topk(min(self.num_queries, score.shape[1]), dim=1).indices
        content = tokens.gather(1, best[..., None].expand(-1, -1, tokens.shape[-1]))
        reference = heads.box(content) + anchors[best]
        logits, embed = heads.classify(content)
        proposals = Prediction(logits, reference.sigmoid(), embed)
        return InitialQueries(
            content.detach(), self._initial_boxes(proposals, reference, pixel_embed), proposals
        )

    def _anchors(self, memory: Pyramid) -> tuple[Tensor, Tensor]:
        """Logits of an anchor per token (S, 4), infinite where invalid, and which are valid (S,)."""
        if len(self.anchor_sizes) != len(memory.shapes):
            raise ValueError(
                f"{len(self.anchor_sizes)} anchor sizes for {len(memory.shapes)} levels: give "
                "decoder.query_init.anchor_sizes one for each of pixel_decoder.strides"
            )
        centres = memory.cell_centres()
        sides = [
            centres.new_full((size, 2), side)
            for size, side in zip(memory.sizes, self.anchor_sizes, strict=True)
        ]
        anchors = torch.cat([centres, torch.cat(sides)], -1)
        valid = ((anchors > ANCHOR_MARGIN) & (anchors < 1 - ANCHOR_MARGIN)).all(-1)
        logits = (anchors / (1 - anchors)).log()
        return logits.masked_fill(~valid[:, None], torch.inf), valid

    def _initial_boxes(self, proposals: Prediction, reference: Tensor, pixel_embed: Tensor) -> Tensor:
        if self.box_init == "no":
            return reference.detach()
        with torch.no_grad():
            masks = proposals.mask_logits(pixel_embed) > 0
            height, width = masks.shape[-2:]
            boxes = boxes_from_masks(masks, inclusive=self.box_init == "mask2box")
            boxes = box_convert(boxes.flatten(0, 1), "xyxy", "cxcywh").view_as(boxes).to(reference)
            return inverse_sigmoid(boxes / boxes.new_tensor([width, height, width, height]))


class LearnedQueries(nn.Module):
    """Queries and their boxes are parameters (Mask DINO's semantic models).

    Args:
        num_queries: Q.
        hidden_dim: D.
    """

    def __init__(self, num_queries: int = 100, hidden_dim: int = 256):
        super().__init__()
        self.content = nn.Embedding(num_queries, hidden_dim)
        self.reference = nn.Embedding(num_queries, 4)

    def forward(self, memory: Pyramid, pixel_embed: Tensor, heads: PredictionHeads) -> InitialQueries:  # noqa: ARG002
        """The same queries for every image; arguments as in :class:`TwoStageQueries`."""
        batch = len(memory.tokens)
        return InitialQueries(
            content=self.content.weight.expand(batch, -1, -1),
            reference=self.reference.weight.expand(batch, -1, -1),
            proposals=None,
        )
