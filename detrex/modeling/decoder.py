"""The decoder loop: queries refine boxes, classes and masks layer by layer.

Shape letters: B images, Q queries of all groups, D channels, L class logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers import (
    ConditionalDecoderLayer,
    DeformableDecoderLayer,
    PlainDecoderLayer,
    inverse_sigmoid,
)
from detrex.modeling.assignment import SupervisedPrediction
from detrex.modeling.encoder import run
from detrex.modeling.heads import PredictionHeads
from detrex.modeling.queries.group import (
    MATCHING,
    InitialQueries,
    QueryGroup,
    QuerySource,
    blocked_pairs,
    join,
)
from detrex.modeling.queries.position import QueryPositionEncoder, QueryState
from detrex.structures import BatchTargets, Prediction, Pyramid


@dataclass
class DecoderOutput:
    """The predictions of a decoder.

    Attributes:
        supervised: predictions of all stages and groups, from which training computes losses.
        final: the last layer's prediction of the matching queries, which becomes results.
        content: (B, Q, D) of the matching queries after the last layer.
        memory: the tokens that the queries attended to.
        pixel_embed: (B, mask_dim, H / 4, W / 4), which turns mask embeddings into masks; None without masks.
    """

    supervised: list[SupervisedPrediction]
    final: Prediction
    content: Tensor
    memory: Pyramid
    pixel_embed: Tensor | None = None


class Decoder(nn.Module):
    """Layers over queries with deep supervision and, if wanted, boxes that every layer refines.

    Args:
        query_init: makes the first queries, see :mod:`detrex.modeling.queries`; None if all queries are
            given, as for prompts.
        position: tells layers where queries are, see :mod:`detrex.modeling.queries.position`.
        heads: make the predictions.
        layers: modules with the arguments of :meth:`detrex.layers.DecoderLayer.forward`, such as
            :class:`DeformableDecoderLayers`.
        refine_boxes: every layer starts from the box of the layer before; else, all start from the first.
        look_forward_twice: the predicted box of a layer also passes a gradient to the refinement before it
            (DINO, arXiv 2203.03605).
        initial_prediction: supervise the queries before the first layer too (Mask DINO).
        checkpointing: compute layers again in the backward pass instead of keeping what they computed.
        logit_eps: coordinates of references are kept this far from 0 and 1 when their logits are computed.
            For boxes that reach the edges, trained weights depend on it: 1e-5 in Mask DINO, 1e-3 in the rest
            of the detrex zoo.

    Raises:
        ValueError: if the number of sets of heads does not fit the number of layers.
    """

    def __init__(
        self,
        query_init: QuerySource | None,
        position: QueryPositionEncoder,
        heads: PredictionHeads,
        layers: Sequence[nn.Module],
        refine_boxes: bool = False,
        look_forward_twice: bool = False,
        initial_prediction: bool = False,
        checkpointing: bool = False,
        logit_eps: float = 1e-3,
    ):
        super().__init__()
        if heads.num_sets not in (1, len(layers)):
            raise ValueError(
                f"{heads.num_sets} sets of heads for {len(layers)} decoder layers: set model.decoder.heads."
                "num_sets to 1 or to the number of layers"
            )
        self.query_init, self.position, self.heads = query_init, position, heads
        self.layers = layers if isinstance(layers, nn.ModuleList) else nn.ModuleList(layers)
        self.refine_boxes, self.look_forward_twice = refine_boxes, look_forward_twice
        self.initial_prediction, self.checkpointing = initial_prediction, checkpointing
        self.logit_eps = logit_eps

    def forward(
        self,
        memory: Pyramid,
        pixel_embed: Tensor | None = None,
        extra_groups: Sequence[QueryGroup] = (),
        targets: BatchTargets | None = None,
    ) -> DecoderOutput:
        """Decodes.

        Args:
            memory: encoded tokens (B, S, D).
            pixel_embed: (B, mask_dim, H / 4, W / 4), or None without masks.
            extra_groups: groups of queries besides those of ``query_init``, such as denoising queries.
            targets: ground truth in training, for sources of queries that use it.

        Raises:
            ValueError: if some groups of queries start from boxes and others from points or learned
                positions.
        """
        start = InitialQueries([])
        if self.query_init is not None:
            start = self.query_init(memory, pixel_embed, self.heads, targets)
        groups = [*extra_groups, *start.groups]
        stages, content = self.stages(groups, memory)  # one prediction per stage
        sizes = [g.size for g in groups]
        by_group = zip(*(stage.split(sizes) for stage in stages), strict=True)
        supervised, final, contents = [], [], []
        for group, predictions, found in zip(groups, by_group, content.split(sizes, 1), strict=True):
            if group.name == MATCHING:
                final.append(predictions[-1])
                contents.append(found)
            if group.size:  # an empty denoising group has nothing to learn
                supervised += self._supervise(group, predictions)
        supervised += start.supervised
        matching = Prediction.concatenate(final)
        return DecoderOutput(supervised, matching, torch.cat(contents, 1), memory, pixel_embed)

    def _supervise(self, group: QueryGroup, predictions: Sequence[Prediction]) -> list[SupervisedPrediction]:
        if group.assignment is None:
            return []
        suffixes = [*(f"_{i}" for i in range(len(predictions) - 1)), ""]
        reference = None if group.reference is None else group.reference.detach()
        first = int(self.initial_prediction and not group.supervise_initial)
        return [
            SupervisedPrediction(
                prediction,
                group.assignment.at_stage(stage, len(predictions)),
                group.loss_suffix.format(stage=suffix),
                reference,
            )
            for stage, (suffix, prediction) in enumerate(zip(suffixes, predictions, strict=True))
        ][first:]

    def stages(self, groups: Sequence[QueryGroup], memory: Pyramid) -> tuple[list[Prediction], Tensor]:
        """The predictions (B, Q) of all stages for all queries, and their last content (B, Q, D)."""
        content, reference, learned = join(groups)  # (B, Q, D), (B, Q, 2 or 4), (B, Q, D)
        blocked = blocked_pairs(groups)  # (Q, Q)
        predictions = []
        if self.initial_prediction:
            if reference is None:
                raise ValueError(
                    "queries without a place have no initial prediction: set "
                    "model.decoder.initial_prediction=false"
                )
            logits, embed = self.heads.classify(0, content)  # (B, Q, L), (B, Q, mask_dim)
            predictions.append(Prediction(logits, reference, embed))
        # The first reference keeps its gradient, so that learned boxes learn; proposals come without one.
        fixed = reference
        for i, layer in enumerate(self.layers):
            if i > 0 and self.refine_boxes:
                # A layer attends around a detached box. When looking forward twice, it predicts an offset to
                # the box before detaching: gradients reach the previous update, but go no further.
                reference = self.refined(i - 1, content, fixed)  # (B, Q, 4)
                fixed = reference.detach()
                reference = reference if self.look_forward_twice else fixed
            position = self.position(QueryState(i, content, fixed, learned, memory))  # (B, Q, D)
            checkpointing = self.checkpointing and self.training
            content = run(layer, content, position, memory, blocked, checkpointing=checkpointing)  # (B, Q, D)
            predictions.append(self.predict(i, content, reference))
        return predictions, content

    def refined(self, stage: int, content: Tensor, reference: Tensor | None) -> Tensor:
        """The boxes (B, Q, 4) around which the next layer attends, computed from the output of a layer.

        Args:
            stage: number of the layer, from 0.
            content: (B, Q, D) output of that layer.
            reference: (B, Q, 2 or 4) around which that layer attended, or None.
        """
        change = self.heads.box(stage, content)  # (B, Q, 4)
        return (change if reference is None else change + _box_logits(reference, self.logit_eps)).sigmoid()

    def predict(self, stage: int, content: Tensor, reference: Tensor | None) -> Prediction:
        """Predicts from the content (B, Q, D) of layer ``stage``; boxes are offsets to the reference."""
        # Trained weights need this: boxes are predicted from normalised content, while the update above
        # uses content that is not normalised.
        normed = self.heads.norm(content)  # (B, Q, D)
        logits, embed = self.heads.classify(stage, normed)  # (B, Q, L), (B, Q, mask_dim)
        change = self.heads.predicted_box(stage, normed)  # (B, Q, 4)
        boxes = change if reference is None else change + _box_logits(reference, self.logit_eps)  # (B, Q, 4)
        return Prediction(logits, boxes.sigmoid(), embed)


class PlainDecoderLayers(nn.ModuleList):
    """Layers whose queries see every token (DETR, arXiv 2005.12872).

    Args:
        hidden_dim, ffn_dim, num_heads, dropout: of the layers.
        num_layers: how many.

    Raises:
        ValueError: if ``hidden_dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        hidden_dim: int = 256,
        ffn_dim: int = 2048,
        num_heads: int = 8,
        num_layers: int = 6,
        dropout: float = 0.0,
    ):
        check_heads(hidden_dim, num_heads)
        super().__init__(
            PlainDecoderLayer(hidden_dim, ffn_dim, num_heads, dropout) for _ in range(num_layers)
        )
        init_xavier(self)


class ConditionalDecoderLayers(nn.ModuleList):
    """Layers that compare content and position separately (Conditional DETR, arXiv 2108.06152).

    Args:
        hidden_dim, ffn_dim, num_heads, dropout, prelu: of the layers.
        num_layers: how many.
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
    ):
        super().__init__(
            self.layer_type(hidden_dim, ffn_dim, num_heads, dropout, first=i == 0, prelu=prelu)
            for i in range(num_layers)
        )
        init_xavier(self)


class DeformableDecoderLayers(nn.ModuleList):
    """Layers whose queries see the memory around their references (Deformable DETR, arXiv 2010.04159).

    Args:
        num_levels: levels of the memory.
        hidden_dim, ffn_dim, num_heads, num_points, dropout: of the layers.
        num_layers: how many.

    Raises:
        ValueError: if ``hidden_dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        num_levels: int = 4,
        hidden_dim: int = 256,
        ffn_dim: int = 2048,
        num_heads: int = 8,
        num_points: int = 4,
        num_layers: int = 6,
        dropout: float = 0.0,
    ):
        check_heads(hidden_dim, num_heads)
        super().__init__(
            DeformableDecoderLayer(hidden_dim, ffn_dim, num_heads, num_levels, num_points, dropout)
            for _ in range(num_layers)
        )


def _box_logits(reference: Tensor, eps: float) -> Tensor:
    """Logits (B, Q, 4) of normalised boxes (B, Q, 4) or points (B, Q, 2); the size of points has logit 0."""
    return F.pad(inverse_sigmoid(reference, eps), (0, 4 - reference.shape[-1]))


def check_heads(hidden_dim: int, num_heads: int) -> None:
    """Raises ValueError if the channels cannot be divided among the heads."""
    if hidden_dim % num_heads:
        raise ValueError(f"hidden_dim {hidden_dim} is not a multiple of num_heads {num_heads}")


def init_xavier(layers: nn.Module) -> None:
    """Draws all matrices from Xavier's uniform distribution, as in DETR."""
    for parameter in layers.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
