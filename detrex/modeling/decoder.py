"""The decoder loop: queries refine boxes, classes and masks layer by layer.

Shape letters: B images, P denoising queries, Q matching queries, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers import (
    ConditionalDecoderLayer,
    DeformableDecoderLayer,
    PlainDecoderLayer,
    at_least_single,
    inverse_sigmoid,
)
from detrex.modeling.denoising import DenoisingQueries
from detrex.modeling.encoder import run
from detrex.modeling.heads import PredictionHeads
from detrex.modeling.query_init import InitialQueries
from detrex.modeling.query_position import QueryState
from detrex.structures import Prediction, Pyramid


@dataclass
class DecoderOutput:
    """Predictions of all stages.

    Attributes:
        layers: one per decoder layer, after the initial prediction if there is one; of matching queries.
        denoising: the same for denoising queries, or empty.
        proposals: the encoder's, where queries were selected from it.
        pixel_embed: (B, mask_dim, H / 4, W / 4), with which mask embeddings become masks; None without masks.
        denoising_queries: their arrangement, or None.
        initial: whether the first entry of ``layers`` and ``denoising`` is an initial prediction.
        binary_proposals: whether proposals only tell objects from background, by the logit of class 0.
        groups: like ``layers`` for every further group of matching queries, which training adds.
    """

    layers: list[Prediction]
    denoising: list[Prediction] = field(default_factory=list)
    proposals: Prediction | None = None
    pixel_embed: Tensor | None = None
    denoising_queries: DenoisingQueries | None = None
    initial: bool = False
    binary_proposals: bool = False
    groups: list[list[Prediction]] = field(default_factory=list)

    @property
    def final(self) -> Prediction:
        """The last layer's prediction."""
        return self.layers[-1]


class Decoder(nn.Module):
    """Layers over queries with deep supervision and, if wanted, boxes that every layer refines.

    Args:
        query_init: makes the first queries, see :mod:`detrex.modeling.query_init`.
        position: tells layers where queries are, see :mod:`detrex.modeling.query_position`.
        heads: make the predictions.
        layers: called as :meth:`detrex.layers.DecoderLayer.forward`.
        refine_boxes: every layer starts from the box of the layer before; else all from the first.
        look_forward_twice: the predicted box of a layer gives a gradient to the refinement before it too
            (DINO, arXiv 2203.03605).
        initial_prediction: supervise the queries before the first layer too (Mask DINO).
        checkpointing: compute layers again in the backward pass instead of keeping what they computed.
        logit_eps: coordinates of references are kept this far from 0 and 1 when their logits are taken.
            Trained weights depend on it where boxes reach the edges: 1e-5 in Mask DINO, 1e-3 in the rest of
            the detrex zoo.
    """

    def __init__(
        self,
        query_init: nn.Module,
        position: nn.Module,
        heads: PredictionHeads,
        layers: Sequence[nn.Module],
        refine_boxes: bool = False,
        look_forward_twice: bool = False,
        initial_prediction: bool = False,
        checkpointing: bool = False,
        logit_eps: float = 1e-5,
    ):
        super().__init__()
        if heads.num_sets not in (1, len(layers)):
            raise ValueError(
                f"{heads.num_sets} sets of heads for {len(layers)} decoder layers: set model.decoder.heads."
                "num_sets to 1 or to the number of layers"
            )
        self.query_init, self.position, self.heads = query_init, position, heads
        self.layers = nn.ModuleList(layers)
        self.refine_boxes, self.look_forward_twice = refine_boxes, look_forward_twice
        self.initial_prediction, self.checkpointing = initial_prediction, checkpointing
        self.logit_eps = logit_eps

    def forward(
        self, memory: Pyramid, pixel_embed: Tensor | None = None, denoising: DenoisingQueries | None = None
    ) -> DecoderOutput:
        """Decodes.

        Args:
            memory: encoded tokens (B, S, D).
            pixel_embed: (B, mask_dim, H / 4, W / 4), or None without masks.
            denoising: queries to put before the matching ones (training).

        Raises:
            ValueError: if there are denoising queries and the matching ones do not start from boxes alone.
        """
        start = self.query_init(memory, pixel_embed, self.heads)
        content, reference = start.content, start.reference
        sizes = start.group_sizes or [content.shape[1]]
        if reference is not None:
            reference = at_least_single(reference).sigmoid()
        if denoising is not None:
            _check_boxes_alone(start)
            content = torch.cat([denoising.content, content], 1)
            reference = torch.cat([denoising.reference.sigmoid(), reference], 1)
            sizes = [denoising.content.shape[1], *sizes]
        blocked = self.blocked(start, denoising)
        predictions = []
        if self.initial_prediction:
            logits, embed = self.heads.classify(0, content)
            predictions.append(Prediction(logits, reference, embed))
        predictions += self._refine(content, reference, start.position, memory, blocked)

        groups = [list(stages) for stages in zip(*(p.split(sizes) for p in predictions), strict=True)]
        known = [] if denoising is None else groups.pop(0)
        return DecoderOutput(
            layers=groups[0],
            denoising=known,
            proposals=start.proposals,
            pixel_embed=pixel_embed,
            denoising_queries=denoising,
            initial=self.initial_prediction,
            binary_proposals=start.binary_proposals,
            groups=groups[1:],
        )

    def blocked(self, start: InitialQueries, denoising: DenoisingQueries | None) -> Tensor | None:
        """Which queries do not see which, see :func:`blocked_queries`."""
        return blocked_queries(start, denoising)

    def _refine(
        self,
        content: Tensor,
        reference: Tensor | None,
        learned: Tensor | None,
        memory: Pyramid,
        blocked: Tensor | None,
    ) -> list[Prediction]:
        predictions = []
        # The first reference keeps its gradient, by which learned boxes learn; proposals come without one.
        fixed = reference
        for i, layer in enumerate(self.layers):
            if i > 0 and self.refine_boxes:
                # A layer attends around a fixed box. The box that it predicts is an offset to the undetached
                # one when looking forward twice: gradients reach the update before, but go no further.
                reference = (self.heads.box(i - 1, content) + _box_logits(fixed, self.logit_eps)).sigmoid()
                fixed = reference.detach()
                reference = reference if self.look_forward_twice else fixed
            position = self.position(QueryState(i, content, fixed, learned, memory))
            checkpointing = self.checkpointing and self.training
            content = run(layer, content, position, memory, blocked, checkpointing=checkpointing)
            predictions.append(self._predict(i, content, reference))
        return predictions

    def _predict(self, stage: int, content: Tensor, reference: Tensor | None) -> Prediction:
        # Trained weights depend on it: boxes are predicted from normalised content, while the update above
        # uses it as it is.
        normed = self.heads.norm(content)
        logits, embed = self.heads.classify(stage, normed)
        change = self.heads.box(stage, normed)
        boxes = change if reference is None else change + _box_logits(reference, self.logit_eps)
        return Prediction(logits, boxes.sigmoid(), embed)


class PlainDecoder(Decoder):
    """Decoder whose queries see every token (DETR, arXiv 2005.12872).

    Args:
        hidden_dim, ffn_dim, num_heads, dropout: of the layers.
        num_layers: how many.
        others: see :class:`Decoder`.
    """

    def __init__(
        self,
        hidden_dim: int = 256,
        ffn_dim: int = 2048,
        num_heads: int = 8,
        num_layers: int = 6,
        dropout: float = 0.0,
        **others,
    ):
        layers = [PlainDecoderLayer(hidden_dim, ffn_dim, num_heads, dropout) for _ in range(num_layers)]
        super().__init__(layers=layers, **others)
        _init_xavier(self.layers)


class ConditionalDecoder(Decoder):
    """Decoder that compares content and position apart (Conditional DETR, arXiv 2108.06152).

    Args:
        hidden_dim, ffn_dim, num_heads, dropout, prelu: of the layers.
        num_layers: how many.
        others: see :class:`Decoder`.
    """

    layer_type = ConditionalDecoderLayer

    def __init__(
        self,
        hidden_dim: int = 256,
        ffn_dim: int = 2048,
        num_heads: int = 8,
        num_layers: int = 6,
        dropout: float = 0.0,
        prelu: bool = False,
        **others,
    ):
        layers = [
            self.layer_type(hidden_dim, ffn_dim, num_heads, dropout, first=i == 0, prelu=prelu)
            for i in range(num_layers)
        ]
        super().__init__(layers=layers, **others)
        _init_xavier(self.layers)


class DeformableDecoder(Decoder):
    """Decoder whose queries see the memory around their references (Deformable DETR, arXiv 2010.04159).

    Args:
        num_levels: levels of the memory.
        hidden_dim, ffn_dim, num_heads, num_points, dropout: of the layers.
        num_layers: how many.
        others: see :class:`Decoder`.

    Raises:
        ValueError: if ``hidden_dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        num_levels: int = 4,
        hidden_dim: int = 256,
        ffn_dim: int = 1024,
        num_heads: int = 8,
        num_points: int = 4,
        num_layers: int = 6,
        dropout: float = 0.0,
        **others,
    ):
        if hidden_dim % num_heads:
            raise ValueError(f"hidden_dim {hidden_dim} is not a multiple of num_heads {num_heads}")
        layers = [
            DeformableDecoderLayer(hidden_dim, ffn_dim, num_heads, num_levels, num_points, dropout)
            for _ in range(num_layers)
        ]
        super().__init__(layers=layers, **others)
        self.num_levels = num_levels

    def forward(
        self, memory: Pyramid, pixel_embed: Tensor | None = None, denoising: DenoisingQueries | None = None
    ) -> DecoderOutput:
        """As :meth:`Decoder.forward`.

        Raises:
            ValueError: if the memory has another number of levels than the decoder.
        """
        if len(memory.shapes) != self.num_levels:
            raise ValueError(
                f"the encoder gives {len(memory.shapes)} levels, the decoder takes {self.num_levels}: "
                "set model.decoder.num_levels to the number of model.encoder.strides"
            )
        return super().forward(memory, pixel_embed, denoising)


def blocked_queries(start: InitialQueries, denoising: DenoisingQueries | None) -> Tensor | None:
    """Attention mask of denoising queries before matching ones, (P + Q, P + Q) bool; None if all see all.

    True where the query of the row must not see that of the column. Groups do not see one another, but
    denoising queries see the first group of matching queries, which would read the answers off them.
    """
    sizes = start.group_sizes or [start.content.shape[1]]
    if denoising is None and len(sizes) == 1:
        return None
    known, repeats = ([], []) if denoising is None else (list(range(1, denoising.groups + 1)), denoising.size)
    counts = [*[repeats] * len(known), *sizes]
    numbers = torch.tensor([*known, *(-i for i in range(len(sizes)))])
    group = numbers.repeat_interleave(torch.tensor(counts)).to(start.content.device, non_blocking=True)
    apart = group[:, None] != group
    return apart & ~((group[:, None] > 0) & (group == 0))


def _check_boxes_alone(start: InitialQueries) -> None:
    if start.reference is None or start.reference.shape[-1] != 4 or start.position is not None:
        raise ValueError(
            "denoising queries are boxes, from which this decoder's queries do not start: set "
            "model.denoising to null, or model.decoder.query_init to LearnedBoxes or ProposalQueries"
        )


def _box_logits(reference: Tensor, eps: float) -> Tensor:
    """Logits (B, Q, 4) of normalised boxes or of points (B, Q, 2), whose size starts from logit 0."""
    return F.pad(inverse_sigmoid(reference, eps), (0, 4 - reference.shape[-1]))


def _init_xavier(layers: nn.Module) -> None:
    for parameter in layers.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
