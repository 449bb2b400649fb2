"""The prediction heads of proposals, the initial prediction and every decoder layer.

Shape letters: B images, Q queries, C class logits, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detrex.layers import MLP, at_least_single
from detrex.modeling.class_score import ClassScore, SigmoidScore

# The stage of proposals; decoder layers are numbered from 0.
PROPOSALS = -1


class HeadSet(nn.Module):
    """A class head, a box head and, with ``mask_dim``, a mask head."""

    def __init__(self, hidden_dim: int, num_classes: int, mask_dim: int | None, class_score: ClassScore):
        super().__init__()
        self.classes = class_score.classifier(hidden_dim, num_classes)
        self.box = MLP(hidden_dim, hidden_dim, 4, 3)
        self.mask = None if mask_dim is None else MLP(hidden_dim, hidden_dim, mask_dim, 3)
        for parameter in self.box.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def set_first_size(self, logit: float) -> None:
        """Sets the initial logit of width and height, instead of 0."""
        last = self.box.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias[2:] = logit


class PredictionHeads(nn.Module):
    """The heads of all stages and the norm before them.

    Args:
        hidden_dim: D of the queries.
        num_classes: number of classes.
        mask_dim: size of the mask embedding; None for no masks.
        class_score: makes the classifiers.
        num_sets: 1 for heads that all decoder layers share, or the number of layers.
        own_proposals: whether proposals have their own set.
        norm: whether queries are normalised before the heads.
        norm_again: normalise a second time before the class and mask heads, also for proposals, as Mask DINO
            does.
        boxes_norm_again: also normalise a second time before predicted boxes, as Semantic-SAM does.
        size_bias: initial bias of the logits of width and height in the first layer's box head.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_classes: int,
        mask_dim: int | None = None,
        class_score: ClassScore | None = None,
        num_sets: int = 1,
        own_proposals: bool = False,
        norm: bool = True,
        norm_again: bool = False,
        boxes_norm_again: bool = False,
        size_bias: float = 0.0,
    ):
        super().__init__()
        class_score = class_score or SigmoidScore()
        self.norm_again, self.boxes_norm_again = norm_again, boxes_norm_again
        self.norm = nn.LayerNorm(hidden_dim) if norm else nn.Identity()
        self.sets = nn.ModuleList(
            HeadSet(hidden_dim, num_classes, mask_dim, class_score) for _ in range(num_sets + own_proposals)
        )
        self.num_sets = num_sets
        self._at(0).set_first_size(size_bias)

    def proposal_logits(self, tokens: Tensor) -> Tensor:
        """Class logits (B, S, C) by which proposals are chosen among tokens (B, S, D)."""
        return self._at(PROPOSALS).classes(tokens)

    def classify(self, stage: int, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Class logits (B, Q, C) and mask embeddings (B, Q, mask_dim), if any, of features (B, Q, D)."""
        heads = self._at(stage)
        features = self.norm(features) if self.norm_again else features
        return heads.classes(features), None if heads.mask is None else heads.mask(features)

    def box(self, stage: int, features: Tensor) -> Tensor:
        """Change (B, Q, 4) of the reference box in logits, at least float32."""
        return at_least_single(self._at(stage).box(features))

    def predicted_box(self, stage: int, normed: Tensor) -> Tensor:
        """Like :meth:`box`, for the prediction of a layer, from normalised content (B, Q, D)."""
        return self.box(stage, self.norm(normed) if self.boxes_norm_again else normed)

    def _at(self, stage: int) -> HeadSet:
        # The stage of proposals is -1, so they have the last set, whether or not it is their own.
        heads = self.sets[stage if self.num_sets > 1 or stage == PROPOSALS else 0]
        assert isinstance(heads, HeadSet)
        return heads
