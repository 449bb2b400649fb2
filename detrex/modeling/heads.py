"""The prediction heads of proposals, the initial prediction and every decoder layer.

Shape letters: B images, Q queries, C class logits, D channels.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from detrex.layers import MLP, at_least_single

# Probability that a freshly initialised focal classifier gives to every class (RetinaNet, arXiv 1708.02002).
PRIOR_PROBABILITY = 0.01
# The stage of proposals, where decoder layers are numbered from 0.
PROPOSALS = -1


class HeadSet(nn.Module):
    """A class, a box and, with ``mask_dim``, a mask head."""

    def __init__(self, hidden_dim: int, num_classes: int, mask_dim: int | None, no_object_class: bool):
        super().__init__()
        self.classes = nn.Linear(hidden_dim, num_classes + no_object_class)
        self.box = MLP(hidden_dim, hidden_dim, 4, 3)
        self.mask = None if mask_dim is None else MLP(hidden_dim, hidden_dim, mask_dim, 3)
        if not no_object_class:
            nn.init.constant_(self.classes.bias, math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY)))
        nn.init.zeros_(self.box.layers[-1].weight)
        nn.init.zeros_(self.box.layers[-1].bias)


class PredictionHeads(nn.Module):
    """The heads of all stages and the norm before them.

    Args:
        hidden_dim: D of the queries.
        num_classes: number of classes.
        mask_dim: size of the mask embedding; None for no masks.
        no_object_class: whether classifiers have a last logit for "no object" (softmax losses).
        num_sets: 1 for heads that all decoder layers share, or the number of layers.
        own_proposals: whether proposals have a set of their own.
        norm: whether queries are normalised before the heads.
        norm_again: normalise once more before classes and masks, and proposals too, as Mask DINO does.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_classes: int,
        mask_dim: int | None = None,
        no_object_class: bool = False,
        num_sets: int = 1,
        own_proposals: bool = False,
        norm: bool = True,
        norm_again: bool = False,
    ):
        super().__init__()
        self.no_object_class, self.norm_again = no_object_class, norm_again
        self.norm = nn.LayerNorm(hidden_dim) if norm else nn.Identity()
        self.sets = nn.ModuleList(
            HeadSet(hidden_dim, num_classes, mask_dim, no_object_class)
            for _ in range(num_sets + own_proposals)
        )
        self.num_sets = num_sets

    def scores(self, tokens: Tensor) -> Tensor:
        """Class logits (B, S, C) by which proposals are chosen among tokens (B, S, D)."""
        return self._at(PROPOSALS).classes(tokens)

    def classify(self, stage: int, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Class logits (B, Q, C) and mask embeddings (B, Q, mask_dim), if any, of features (B, Q, D)."""
        heads = self._at(stage)
        features = self.norm(features) if self.norm_again else features
        return heads.classes(features), None if heads.mask is None else heads.mask(features)

    def box(self, stage: int, features: Tensor) -> Tensor:
        """(B, Q, 4) change of the logits of the reference box, float32 at least."""
        return at_least_single(self._at(stage).box(features))

    def _at(self, stage: int) -> HeadSet:
        # Counted from the end, proposals have the last set, whether it is their own or not.
        return self.sets[stage if self.num_sets > 1 or stage == PROPOSALS else 0]
