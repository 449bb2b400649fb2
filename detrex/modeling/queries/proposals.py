"""Queries that start from proposals: the best encoder tokens.

Shape letters: B images, S tokens, Q queries, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from detrex.layers import LOGIT_EPS, at_most, is_traced, linear, sine_encoding, take_rows
from detrex.modeling.assignment import Assignment, OneToOne, SupervisedPrediction
from detrex.modeling.heads import PROPOSALS, PredictionHeads
from detrex.modeling.queries.group import InitialQueries, QueryGroup
from detrex.structures import BatchTargets, Prediction, Pyramid, boxes_from_masks

# Anchors with a centre or size this close to 0 or 1 are not used (Deformable DETR, arXiv 2010.04159).
ANCHOR_MARGIN = 0.01
ANCHOR_SIZES = (0.05, 0.1, 0.2, 0.4)
PROPOSAL_SUFFIX = "_interm"


class BoxesFromMasks:
    """First boxes of queries, tight around the masks of their proposals (Mask DINO, arXiv 2206.02777).

    Args:
        past_last_pixel: whether the far edges of a box lie one past the last pixel of the mask (published
            name "bitmask") or at the index of the last pixel ("mask2box").
    """

    def __init__(self, past_last_pixel: bool = False):
        self.past_last_pixel = past_last_pixel

    @torch.no_grad()
    def __call__(self, proposals: Prediction, pixel_embed: Tensor) -> Tensor:
        """Normalised cxcywh boxes (B, Q, 4), relative to the padded input.

        Args:
            proposals: (B, Q) with mask embeddings.
            pixel_embed: (B, mask_dim, H / 4, W / 4).
        """
        masks = _mask_logits(proposals, pixel_embed) > 0  # (B, Q, H / 4, W / 4)
        height, width = masks.shape[-2:]
        boxes = boxes_from_masks(masks, inclusive=not self.past_last_pixel)
        boxes = box_convert(boxes.flatten(0, 1), "xyxy", "cxcywh").view_as(boxes).to(proposals.boxes)
        boxes = boxes / boxes.new_tensor([width, height, width, height])
        return boxes.clamp(LOGIT_EPS, 1 - LOGIT_EPS)


def _mask_logits(proposals: Prediction, pixel_embed: Tensor) -> Tensor:
    """Like :meth:`~detrex.structures.Prediction.mask_logits`; on CPUs image by image, which is faster."""
    embed = proposals.mask_embed
    if embed is None or not pixel_embed.is_cpu or is_traced():
        return proposals.mask_logits(pixel_embed)
    pixels = pixel_embed.flatten(2).transpose(1, 2)  # (B, H / 4 * W / 4, mask_dim)
    logits = torch.stack([linear(e, p) for e, p in zip(embed, pixels, strict=True)])
    return logits.unflatten(-1, pixel_embed.shape[-2:])


class ProposalQueries(nn.Module):
    """The tokens with the highest class logits become queries (DINO, arXiv 2203.03605; Mask DINO).

    Args:
        num_queries: Q; if there are fewer tokens, all of them are used.
        hidden_dim: D.
        anchor_sizes: side of the square anchors of each level, finest first, as a fraction of the image.
            The decoder of the published Mask DINO numbers its levels coarsest first when it doubles 0.05 from
            level to level, so its trained weights expect the *smallest* anchors at the coarsest level.
        box_init: makes the first boxes from the proposals; None for the boxes of the box head.
        learned_content: queries take only their boxes from proposals; their contents are learned (DINO).
        assignment: of objects to queries; one to one by default.
        proposal_assignment: of objects to proposals; one to one by default.
        leave_out_invalid: tokens whose anchors are too large or too near to an edge of the image become
            queries only if there are no others (OpenSeeD). Published Mask DINO allows them.
    """

    def __init__(
        self,
        num_queries: int = 300,
        hidden_dim: int = 256,
        anchor_sizes: Sequence[float] = ANCHOR_SIZES,
        box_init: BoxesFromMasks | None = None,
        learned_content: bool = False,
        assignment: Assignment | None = None,
        proposal_assignment: Assignment | None = None,
        leave_out_invalid: bool = False,
    ):
        super().__init__()
        self.num_queries, self.box_init, self.leave_out_invalid = num_queries, box_init, leave_out_invalid
        self.anchor_sizes = tuple(anchor_sizes)
        self.projection = nn.Linear(hidden_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        self.content = nn.Embedding(num_queries, hidden_dim) if learned_content else None
        self.assignment, self.proposal_assignment = (
            assignment or OneToOne(),
            proposal_assignment or OneToOne(),
        )

    def check_padding(self, mask_padding: bool) -> None:
        """Checks that ``mask_padding`` of a model fits.

        Raises:
            ValueError: if first boxes come from masks, which are relative to the padded batch, and
                ``mask_padding`` is set.
        """
        if mask_padding and self.box_init is not None:
            raise ValueError(
                "boxes from masks are relative to the padded batch, which model.mask_padding=true leaves "
                "out: set model.decoder.query_init.box_init=null or model.mask_padding=false"
            )

    def forward(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None,
        heads: PredictionHeads,
        targets: BatchTargets | None = None,  # noqa: ARG002
    ) -> InitialQueries:
        """Selects queries from the encoded tokens, see :class:`~detrex.modeling.queries.QuerySource`.

        Raises:
            ValueError: if the memory does not have as many levels as there are anchor sizes, or first boxes
                are to come from masks but the model has none.
        """
        tokens, anchors = self.candidates(memory)
        score = heads.proposal_logits(tokens).detach().amax(-1)  # (B, S)
        if self.leave_out_invalid:
            score = score.masked_fill(anchors.isinf().any(-1), -torch.inf)
        best = score.topk(at_most(self.num_queries, score.shape[1]), dim=1).indices
        tokens, anchors = take_rows(tokens, best), take_rows(anchors, best)
        proposals = propose(tokens, anchors, heads)
        boxes = proposals.boxes.detach()
        if self.box_init is not None:
            if pixel_embed is None or proposals.mask_embed is None:
                raise ValueError(
                    "this model has no masks to start from: set model.decoder.query_init.box_init=null"
                )
            boxes = self.box_init(proposals, pixel_embed)
        content = tokens.detach()
        if self.content is not None:
            content = self.content.weight[: tokens.shape[1]].expand_as(tokens)
        group = QueryGroup(content, boxes, assignment=self.assignment)
        supervised = SupervisedPrediction(
            proposals, self.proposal_assignment, PROPOSAL_SUFFIX, anchors.sigmoid()
        )
        return InitialQueries([group], [supervised])

    def candidates(self, memory: Pyramid) -> tuple[Tensor, Tensor]:
        """Normalised tokens (B, S, D), and logits (B, S, 4) of their anchors, infinite for invalid ones."""
        anchors, valid = self._anchors(memory)
        tokens = self.norm(self.projection(memory.tokens * valid[..., None]))
        return tokens, anchors.expand(tokens.shape[0], -1, -1)

    def _anchors(self, memory: Pyramid) -> tuple[Tensor, Tensor]:
        """Logits of an anchor per token (1 or B, S, 4), and whether it is valid (1 or B, S)."""
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


class EncodedProposals(ProposalQueries):
    """Content and position of queries are computed from the boxes of proposals (two-stage Deformable DETR).

    Proposals only distinguish objects from background; those that become no queries are supervised, too.

    Args:
        num_queries, hidden_dim, anchor_sizes, assignment: see :class:`ProposalQueries`.
        proposal_assignment: of objects to all tokens, class-agnostic; one to one by default.
    """

    def __init__(
        self,
        num_queries: int = 300,
        hidden_dim: int = 256,
        anchor_sizes: Sequence[float] = ANCHOR_SIZES,
        assignment: Assignment | None = None,
        proposal_assignment: Assignment | None = None,
    ):
        super().__init__(
            num_queries,
            hidden_dim,
            anchor_sizes,
            assignment=assignment,
            proposal_assignment=proposal_assignment or OneToOne(class_agnostic=True),
        )
        self.box_projection = nn.Linear(2 * hidden_dim, 2 * hidden_dim)
        self.box_norm = nn.LayerNorm(2 * hidden_dim)

    def forward(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None,  # noqa: ARG002
        heads: PredictionHeads,
        targets: BatchTargets | None = None,  # noqa: ARG002
    ) -> InitialQueries:
        """See :meth:`ProposalQueries.forward`."""
        tokens, anchors = self.candidates(memory)
        proposals = propose(tokens, anchors, heads)
        best = self.select(proposals, memory)
        boxes = take_rows(proposals.boxes, best).detach()
        content, position = self.start(take_rows(tokens, best).detach(), boxes)
        supervised = SupervisedPrediction(
            proposals, self.proposal_assignment, PROPOSAL_SUFFIX, anchors.sigmoid()
        )
        return InitialQueries(self.groups(content, boxes, position), [supervised])

    def select(self, proposals: Prediction, memory: Pyramid) -> Tensor:  # noqa: ARG002
        """Tokens (B, Q) that become queries: the proposals (B, S) with the highest logits of class 0."""
        score = proposals.logits.detach()[..., 0]  # (B, S)
        return score.topk(at_most(self.num_queries, score.shape[1]), dim=1).indices

    def start(self, tokens: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Content and position (B, Q, D) of queries, from their tokens (B, Q, D) and boxes (B, Q, 4)."""
        # In the order cx, cy, w, h, unlike the encoding of reference boxes in decoders.
        encoded = sine_encoding(boxes * (2 * math.pi), tokens.shape[-1] // 2).flatten(-2)  # (B, Q, 2 * D)
        position, content = self.box_norm(self.box_projection(encoded)).chunk(2, -1)
        return content, position

    def groups(self, content: Tensor, boxes: Tensor, position: Tensor) -> list[QueryGroup]:
        """The groups of the selected queries, (B, Q, ...) each, best first; by default a single group."""
        return [QueryGroup(content, boxes, position, self.assignment)]


def propose(tokens: Tensor, anchors: Tensor, heads: PredictionHeads) -> Prediction:
    """The prediction of the heads for tokens (B, S, D) with anchors (B, S, 4), logits of cxcywh."""
    logits, embed = heads.classify(PROPOSALS, tokens)
    boxes = (heads.box(PROPOSALS, tokens) + anchors).sigmoid()
    return Prediction(logits, boxes, embed)
