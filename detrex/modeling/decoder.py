"""The decoder of Mask DINO: queries refine boxes, classes and masks layer by layer.

Shape letters: B images, P denoising queries, Q matching queries, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detrex.layers import MLP, DeformableDecoderLayer, box_sine_encoding, inverse_sigmoid
from detrex.modeling.denoising import DenoisingQueries
from detrex.modeling.heads import PredictionHeads
from detrex.structures import Prediction, Pyramid


@dataclass
class DecoderOutput:
    """Predictions of all stages.

    Attributes:
        layers: one per decoder layer, after the initial prediction if there is one; of matching queries.
        denoising: the same for denoising queries, or empty.
        proposals: the encoder's, where queries were selected from it.
        pixel_embed: (B, mask_dim, H / 4, W / 4), with which mask embeddings become masks.
        denoising_queries: their arrangement, or None.
        initial: whether the first entry of ``layers`` and ``denoising`` is an initial prediction.
    """

    layers: list[Prediction]
    denoising: list[Prediction]
    proposals: Prediction | None
    pixel_embed: Tensor
    denoising_queries: DenoisingQueries | None
    initial: bool = True

    @property
    def final(self) -> Prediction:
        """The last layer's prediction."""
        return self.layers[-1]


class MaskDecoder(nn.Module):
    """Decoder with iterative box refinement, shared heads and deep supervision.

    Args:
        query_init: :class:`TwoStageQueries` or :class:`LearnedQueries`, or a module like them.
        num_classes: C.
        hidden_dim: D.
        mask_dim: size of the per-pixel embedding.
        num_levels: levels of the memory.
        num_heads, ffn_dim, num_layers, num_points, dropout: of the layers.
        no_object_class: whether the classifier has a last logit for "no object".
        initial_prediction: supervise the queries before the first layer too.

    Raises:
        ValueError: if ``hidden_dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        query_init: nn.Module,
        num_classes: int,
        hidden_dim: int = 256,
        mask_dim: int = 256,
        num_levels: int = 4,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        num_layers: int = 9,
        num_points: int = 4,
        dropout: float = 0.0,
        no_object_class: bool = False,
        initial_prediction: bool = True,
    ):
        super().__init__()
        if hidden_dim % num_heads:
            raise ValueError(f"hidden_dim {hidden_dim} is not a multiple of num_heads {num_heads}")
        self.hidden_dim, self.initial_prediction = hidden_dim, initial_prediction
        self.num_levels = num_levels
        self.query_init = query_init
        self.heads = PredictionHeads(hidden_dim, num_classes, mask_dim, no_object_class)
        self.box_position = MLP(2 * hidden_dim, hidden_dim, hidden_dim, 2)
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(hidden_dim, ffn_dim, num_heads, num_levels, num_points, dropout)
            for _ in range(num_layers)
        )

    def forward(
        self, memory: Pyramid, pixel_embed: Tensor, denoising: DenoisingQueries | None = None
    ) -> DecoderOutput:
        """Decodes.

        Args:
            memory: encoded tokens (B, S, D).
            pixel_embed: (B, mask_dim, H / 4, W / 4).
            denoising: queries to put before the matching ones (training).

        Raises:
            ValueError: if the memory has another number of levels than the decoder.
        """
        if len(memory.shapes) != self.num_levels:
            raise ValueError(
                f"the pixel decoder gives {len(memory.shapes)} levels, the decoder takes {self.num_levels}: "
                "set model.decoder.num_levels to the number of model.pixel_decoder.strides"
            )
        start = self.query_init(memory, pixel_embed, self.heads)
        content, reference, blocked = start.content, start.reference.sigmoid(), None
        if denoising is not None:
            blocked = denoising.blocked(content.shape[1])
            content = torch.cat([denoising.content, content], 1)
            reference = torch.cat([denoising.reference.sigmoid(), reference], 1)

        predictions = []
        if self.initial_prediction:
            logits, embed = self.heads.classify(content)
            predictions.append(Prediction(logits, reference, embed))
        predictions += self._refine(content, reference, memory, blocked)

        split = 0 if denoising is None else denoising.content.shape[1]
        return DecoderOutput(
            layers=[p.queries(slice(split, None)) for p in predictions],
            denoising=[p.queries(slice(0, split)) for p in predictions] if split else [],
            proposals=start.proposals,
            pixel_embed=pixel_embed,
            denoising_queries=denoising,
            initial=self.initial_prediction,
        )

    def _refine(
        self, content: Tensor, reference: Tensor, memory: Pyramid, blocked: Tensor | None
    ) -> list[Prediction]:
        predictions = []
        # The first reference keeps its gradient, by which learned boxes learn; proposals come without one.
        fixed = reference
        for i, layer in enumerate(self.layers):
            if i > 0:
                # A layer attends around a fixed box, while the box it predicts is an offset to the undetached
                # one: gradients reach the update of the layer before, but go no further ("look forward
                # twice", DINO, arXiv 2203.03605).
                reference = (self.heads.box(content) + inverse_sigmoid(fixed)).sigmoid()
                fixed = reference.detach()
            position = self.box_position(box_sine_encoding(fixed, self.hidden_dim // 2))
            content = layer(content, position, fixed, memory, blocked)
            predictions.append(self._predict(content, reference))
        return predictions

    def _predict(self, content: Tensor, reference: Tensor) -> Prediction:
        # Trained weights depend on two details here: boxes are predicted from once normalised content, while
        # the update above uses it raw, and classes and masks from content normalised twice by the same norm.
        normed = self.heads.norm(content)
        logits, embed = self.heads.classify(normed)
        boxes = (self.heads.box(normed) + inverse_sigmoid(reference)).sigmoid()
        return Prediction(logits, boxes, embed)
