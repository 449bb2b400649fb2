"""How decoder queries start: from the best encoder tokens, or learned.

Shape letters: B images, S tokens, Q queries, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from detrex.layers import inverse_sigmoid, sine_encoding
from detrex.modeling.heads import PROPOSALS, PredictionHeads
from detrex.structures import Prediction, Pyramid, boxes_from_masks

# Anchors with a centre or size this close to 0 or 1 are no proposals (Deformable DETR, arXiv 2010.04159).
ANCHOR_MARGIN = 0.01


@dataclass
class InitialQueries:
    """What the decoder starts from.

    Attributes:
        content: (B, Q, D).
        reference: (B, Q, 4) logits of normalised cxcywh boxes or (B, Q, 2) of (x, y), without gradient where
            they are proposals; None for queries without a place.
        position: (B, Q, D) learned position, or None where it follows from the reference.
        proposals: the prediction that selected them, supervised like a decoder layer; None if learned.
        binary_proposals: see :class:`~detrex.modeling.decoder.DecoderOutput`.
        group_sizes: queries of every group, where there are several that do not see one another; the first
            is the one that inference uses.
    """

    content: Tensor
    reference: Tensor | None = None
    position: Tensor | None = None
    proposals: Prediction | None = None
    binary_proposals: bool = False
    group_sizes: Sequence[int] | None = None


class LearnedBoxes(nn.Module):
    """Every query has a learned box (DAB-DETR, arXiv 2201.12329; Mask DINO's semantic models).

    Args:
        num_queries: Q.
        hidden_dim: D.
        learned_content: whether contents are learned too, or else start from 0.
    """

    def __init__(self, num_queries: int = 100, hidden_dim: int = 256, learned_content: bool = True):
        super().__init__()
        self.num_queries, self.hidden_dim = num_queries, hidden_dim
        self.content = nn.Embedding(num_queries, hidden_dim) if learned_content else None
        self.reference = nn.Embedding(num_queries, 4)

    def forward(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None,  # noqa: ARG002
        heads: PredictionHeads,  # noqa: ARG002
    ) -> InitialQueries:
        """The same queries for every image; arguments as of :meth:`ProposalQueries.forward`."""
        shape = (len(memory.tokens), -1, -1)
        return InitialQueries(self.contents().expand(shape), self.reference.weight.expand(shape))

    def contents(self) -> Tensor:
        """(Q, D)."""
        if self.content is not None:
            return self.content.weight
        return self.reference.weight.new_zeros(self.num_queries, self.hidden_dim)


class LearnedPositions(nn.Module):
    """Every query has a learned position encoding (DETR, Deformable and Conditional DETR).

    Args:
        num_queries: Q.
        hidden_dim: D.
        learned_content: whether contents are learned too, or else start from 0.
        point: makes the logits of a point (x, y) of a position (Q, D); None for queries without a place.
        num_groups: groups of ``num_queries`` that training uses side by side (Group DETR, arXiv 2207.13085).
    """

    def __init__(
        self,
        num_queries: int = 100,
        hidden_dim: int = 256,
        learned_content: bool = False,
        point: nn.Module | None = None,
        num_groups: int = 1,
    ):
        super().__init__()
        self.num_queries, self.num_groups = num_queries, num_groups
        self.position = nn.Embedding(num_queries * num_groups, hidden_dim)
        self.content = nn.Embedding(num_queries * num_groups, hidden_dim) if learned_content else None
        self.point = point

    def forward(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None,  # noqa: ARG002
        heads: PredictionHeads,  # noqa: ARG002
    ) -> InitialQueries:
        """The same queries for every image; arguments as of :meth:`ProposalQueries.forward`."""
        groups = self.num_groups if self.training else 1
        used = slice(groups * self.num_queries)
        position = self.position.weight[used]
        content = torch.zeros_like(position) if self.content is None else self.content.weight[used]
        shape = (len(memory.tokens), -1, -1)
        return InitialQueries(
            content.expand(shape),
            None if self.point is None else self.point(position).expand(shape),
            position.expand(shape),
            group_sizes=[self.num_queries] * groups,
        )


class ProposalQueries(nn.Module):
    """The tokens with the highest class logits become queries (DINO's selection, with Mask DINO's boxes).

    Args:
        num_queries: Q; where there are fewer tokens, all of them are used.
        hidden_dim: D.
        anchor_sizes: side of the square anchors of each level, finest first, as a fraction of the image.
            The decoder of the published Mask DINO numbers its levels coarsest first when it doubles 0.05 from
            level to level, so its trained weights expect the *smallest* anchors at the coarsest level.
        box_init: boxes from the box head ("no") or from the proposals' masks: "mask2box" spans first to last
            pixel, "bitmask" reaches one pixel further, to the far edge of the last.
        learned_content: queries take only their boxes from proposals, their contents are learned (DINO).

    Raises:
        ValueError: for another ``box_init``.
    """

    # Whether proposals only tell objects from background, by the logit of class 0.
    binary = False
    # Whether all tokens are supervised as proposals, or only those that become queries.
    supervise_all = False

    def __init__(
        self,
        num_queries: int = 300,
        hidden_dim: int = 256,
        anchor_sizes: Sequence[float] = (0.05, 0.1, 0.2, 0.4),
        box_init: Literal["no", "mask2box", "bitmask"] = "no",
        learned_content: bool = False,
    ):
        super().__init__()
        if box_init not in ("no", "mask2box", "bitmask"):
            raise ValueError(f"box_init is '{box_init}'; choose 'no', 'mask2box' or 'bitmask'")
        self.num_queries, self.box_init = num_queries, box_init
        self.anchor_sizes = tuple(anchor_sizes)
        self.projection = nn.Linear(hidden_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        self.content = nn.Embedding(num_queries, hidden_dim) if learned_content else None

    def forward(self, memory: Pyramid, pixel_embed: Tensor | None, heads: PredictionHeads) -> InitialQueries:
        """Selects queries from the encoded tokens.

        Args:
            memory: (B, S, D), as many levels as anchor sizes.
            pixel_embed: (B, mask_dim, H / 4, W / 4), or None without masks.
            heads: the decoder's heads.
        """
        anchors, valid = self._anchors(memory)
        tokens = self.norm(self.projection(memory.tokens * valid[..., None]))
        scores = heads.scores(tokens).detach()
        score = scores[..., 0] if self.binary else scores.amax(-1)  # (B, S)
        best = score.topk(min(self.num_queries, score.shape[1]), dim=1).indices
        anchors = anchors.expand(len(tokens), -1, -1)
        if not self.supervise_all:
            tokens, anchors = _rows(tokens, best), _rows(anchors, best)
        reference = heads.box(PROPOSALS, tokens) + anchors
        logits, embed = heads.classify(PROPOSALS, tokens)
        proposals = Prediction(logits, reference.sigmoid(), embed)
        boxes = self._initial_boxes(proposals, reference, pixel_embed)
        if self.supervise_all:
            tokens, boxes = _rows(tokens, best), _rows(boxes, best)
        content, position = self._start(tokens.detach(), boxes)
        return InitialQueries(content, boxes, position, proposals, self.binary)

    def _start(self, selected: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor | None]:  # noqa: ARG002
        """Content and learned position of queries from selected tokens (B, Q, D) and the logits of boxes."""
        if self.content is None:
            return selected, None
        return self.content.weight[: selected.shape[1]].expand_as(selected), None

    def _anchors(self, memory: Pyramid) -> tuple[Tensor, Tensor]:
        """Logits of an anchor per token (1 or B, S, 4), infinite where invalid, and which are valid."""
        if len(self.anchor_sizes) != len(memory.shapes):
            raise ValueError(
                f"{len(self.anchor_sizes)} anchor sizes for {len(memory.shapes)} levels: give "
                "decoder.query_init.anchor_sizes one for each of encoder.strides"
            )
        centres = memory.cell_centres()
        sides = [
            centres.new_full((size, 2), side)
            for size, side in zip(memory.sizes, self.anchor_sizes, strict=True)
        ]
        anchors = torch.cat([centres, torch.cat(sides).expand_as(centres)], -1)
        # Centres in masked padding lie beyond 1, so this leaves them out.
        valid = ((anchors > ANCHOR_MARGIN) & (anchors < 1 - ANCHOR_MARGIN)).all(-1)
        logits = (anchors / (1 - anchors)).log()
        return logits.masked_fill(~valid[..., None], torch.inf), valid

    def _initial_boxes(self, proposals: Prediction, reference: Tensor, pixel_embed: Tensor | None) -> Tensor:
        if self.box_init == "no":
            return reference.detach()
        with torch.no_grad():
            masks = proposals.mask_logits(pixel_embed) > 0
            height, width = masks.shape[-2:]
            boxes = boxes_from_masks(masks, inclusive=self.box_init == "mask2box")
            boxes = box_convert(boxes.flatten(0, 1), "xyxy", "cxcywh").view_as(boxes).to(reference)
            return inverse_sigmoid(boxes / boxes.new_tensor([width, height, width, height]))


class EncodedProposals(ProposalQueries):
    """Content and position of queries are computed from the boxes of proposals (two-stage Deformable DETR).

    Proposals only tell objects from background, and those that become no queries are supervised too.

    Args:
        num_queries, hidden_dim, anchor_sizes: see :class:`ProposalQueries`.
    """

    binary = True
    supervise_all = True

    def __init__(
        self,
        num_queries: int = 300,
        hidden_dim: int = 256,
        anchor_sizes: Sequence[float] = (0.05, 0.1, 0.2, 0.4),
    ):
        super().__init__(num_queries, hidden_dim, anchor_sizes)
        self.box_projection = nn.Linear(2 * hidden_dim, 2 * hidden_dim)
        self.box_norm = nn.LayerNorm(2 * hidden_dim)

    def _start(self, selected: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor | None]:
        # In the order cx, cy, w, h, unlike the encoding of reference boxes in decoders.
        encoded = sine_encoding(boxes.sigmoid() * (2 * math.pi), selected.shape[-1] // 2).flatten(-2)
        position, content = self.box_norm(self.box_projection(encoded)).chunk(2, -1)
        return content, position


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B, Q) of ``values`` (B, S, D)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
