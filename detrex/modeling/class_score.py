"""The meaning of class logits, defined once for heads, matching, losses and results.

Shape letters: B images, Q queries, N objects, C classes, L class logits, D channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Probability that a freshly initialised sigmoid classifier gives to each class (RetinaNet, arXiv
# 1708.02002).
PRIOR_PROBABILITY = 0.01
# Keeps the logarithms of the matching cost finite, as published.
LOG_EPS = 1e-8


@dataclass
class ClassTargets:
    """The classes that a prediction's queries should have.

    Attributes:
        labels: (B, Q) int64, C for "no object".
        quality: (B, Q) IoU of the boxes of a query and its object, without gradient, 0 without an object;
            None unless :attr:`ClassScore.uses_quality`.
        weight: (B, Q) result of :meth:`ClassScore.pair_weights`, 0 without an object; None unless
            :attr:`ClassScore.uses_quality`.
    """

    labels: Tensor
    quality: Tensor | None = None
    weight: Tensor | None = None


@dataclass
class ClassProbabilities:
    """The probabilities that class logits stand for.

    Attributes:
        independent: (..., Q, C) probability of each class by itself, which scores instances.
        exclusive: (..., Q, C) probabilities of classes that exclude one another, for pixels.
        certainty: (..., Q) probability that there is an object, negative if the query says "no object".
    """

    independent: Tensor
    exclusive: Tensor
    certainty: Tensor


class ClassScore(Protocol):
    """The meaning of class logits.

    Attributes:
        uses_quality: whether the loss takes the IoU of the boxes.
    """

    uses_quality: bool

    def num_logits(self, num_classes: int) -> int:
        """The number of logits, L, for C classes."""
        ...

    def classifier(self, hidden_dim: int, num_classes: int) -> nn.Module:
        """A head that turns content (..., D) into logits (..., L)."""
        ...

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Matching cost (Q, N) of queries and objects.

        Args:
            logits: (Q, L).
            labels: (Q, N) int64, the class of each object; rows differ if some predictions are
                class-agnostic.
        """
        ...

    def pair_weights(self, logits: Tensor, quality: Tensor, same_object: Tensor) -> Tensor:
        """Weights (M,) of matched pairs in the losses, if :attr:`uses_quality`.

        Args:
            logits: (M,) logit of the object's class.
            quality: (M,) IoU of the boxes of the pairs.
            same_object: (M,) int64, equal for pairs that answer for the same object.
        """
        ...

    def loss(self, logits: Tensor, targets: ClassTargets) -> tuple[Tensor, Tensor | None]:
        """Loss of every query (B, Q) for logits (B, Q, L).

        The second value holds the weights (B, Q) of queries in a weighted mean; if it is None, losses are
        divided by the number of objects.
        """
        ...

    def probabilities(self, logits: Tensor) -> ClassProbabilities:
        """The probabilities that logits (..., Q, L) stand for."""
        ...


class SigmoidScore:
    """Every class is a yes-or-no question; losses and costs are focal (arXiv 1708.02002).

    Args:
        alpha, gamma: as in the paper.
        temperature: of the softmax over probabilities for :attr:`ClassProbabilities.exclusive` (Mask DINO).
        cost_eps: keeps the logarithms of the matching cost finite.
    """

    uses_quality = False

    def __init__(
        self, alpha: float = 0.25, gamma: float = 2.0, temperature: float = 0.06, cost_eps: float = LOG_EPS
    ):
        self.alpha, self.gamma, self.temperature, self.cost_eps = alpha, gamma, temperature, cost_eps

    def num_logits(self, num_classes: int) -> int:
        """One logit for each class."""
        return num_classes

    def classifier(self, hidden_dim: int, num_classes: int) -> nn.Module:
        """A linear layer that initially gives every class a low probability."""
        layer = nn.Linear(hidden_dim, num_classes)
        nn.init.constant_(layer.bias, math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY)))
        return layer

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See :meth:`ClassScore.cost`: the focal loss of "yes" minus that of "no"."""
        return focal_cost(logits, self.alpha, self.gamma, self.cost_eps).gather(1, labels)

    def pair_weights(self, logits: Tensor, quality: Tensor, same_object: Tensor) -> Tensor:  # noqa: ARG002
        """All pairs weigh 1."""
        return torch.ones_like(quality)

    def loss(self, logits: Tensor, targets: ClassTargets) -> tuple[Tensor, Tensor | None]:
        """See :meth:`ClassScore.loss`, summed over classes."""
        positive = F.one_hot(targets.labels, logits.shape[-1] + 1)[..., :-1].to(logits.dtype)  # (B, Q, C)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, positive, reduction="none")  # (B, Q, C)
        miss = (logits.sigmoid() - positive).abs()  # 1 - probability of the truth
        balance = self.alpha * positive + (1 - self.alpha) * (1 - positive)  # (B, Q, C)
        return (balance * cross_entropy * miss**self.gamma).sum(-1), None

    def probabilities(self, logits: Tensor) -> ClassProbabilities:
        """See :meth:`ClassScore.probabilities`."""
        independent = logits.sigmoid()  # (..., Q, C)
        exclusive = (independent / self.temperature).softmax(-1)  # (..., Q, C)
        return ClassProbabilities(independent, exclusive, independent.amax(-1))


class SoftmaxScore:
    """Classes exclude one another and the last logit says "no object" (DETR, arXiv 2005.12872).

    Args:
        no_object_weight: weight of queries without object; the loss is a weighted mean over queries.
        focal_cost: use the matching costs of :class:`SigmoidScore`, as in Mask DINO's semantic models,
            instead of the negative probability.
    """

    uses_quality = False

    def __init__(self, no_object_weight: float = 0.1, focal_cost: bool = False):
        self.no_object_weight, self.focal_cost = no_object_weight, focal_cost

    def num_logits(self, num_classes: int) -> int:
        """C classes and one for "no object"."""
        return num_classes + 1

    def classifier(self, hidden_dim: int, num_classes: int) -> nn.Module:
        """Makes the linear layer that gives the logits."""
        return nn.Linear(hidden_dim, num_classes + 1)

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See :meth:`ClassScore.cost`."""
        cost = focal_cost(logits) if self.focal_cost else -logits.softmax(-1)  # (Q, C + 1)
        return cost.gather(1, labels)  # (Q, N)

    def pair_weights(self, logits: Tensor, quality: Tensor, same_object: Tensor) -> Tensor:  # noqa: ARG002
        """All pairs weigh 1."""
        return torch.ones_like(quality)

    def loss(self, logits: Tensor, targets: ClassTargets) -> tuple[Tensor, Tensor | None]:
        """See :meth:`ClassScore.loss`: cross-entropy, and the weights of its mean."""
        absent = targets.labels == logits.shape[-1] - 1  # (B, Q)
        weight = torch.where(absent, self.no_object_weight, 1.0).to(logits.dtype)  # (B, Q)
        return weight * F.cross_entropy(logits.transpose(1, 2), targets.labels, reduction="none"), weight

    def probabilities(self, logits: Tensor) -> ClassProbabilities:
        """See :meth:`ClassScore.probabilities`; the same probabilities for both uses."""
        probability = logits.softmax(-1)  # (..., Q, C + 1)
        certainty, label = probability.max(-1)  # (..., Q)
        certainty = certainty.masked_fill(label == logits.shape[-1] - 1, -1.0)
        classes = probability[..., :-1]  # (..., Q, C)
        return ClassProbabilities(classes, classes, certainty)


def focal_cost(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0, eps: float = LOG_EPS) -> Tensor:
    """How much the focal loss of each logit, of any shape, would change if the query took that class."""
    probability = logits.sigmoid()
    positive = alpha * (1 - probability) ** gamma * -(probability + eps).log()
    negative = (1 - alpha) * probability**gamma * -(1 - probability + eps).log()
    return positive - negative
