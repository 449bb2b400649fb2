"""Losses of prompted masks: every granularity of a prompt may answer with another of its masks.

Shape letters: Q queries, N masks of an image (each once for every prompt that it answers), P supervised
predictions, M matched pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from detrex.layers import MLP
from detrex.modeling.assignment import Assignment, Matches, SupervisedPrediction
from detrex.modeling.class_score import ClassProbabilities, ClassTargets
from detrex.modeling.criterion import JoinedPredictions, SetCriterion
from detrex.runtime.distributed import mean_over_processes
from detrex.structures import BatchTargets


class QualityScore:
    """One logit per query: the IoU that it expects of its mask, unbounded.

    Queries have no classes: the prompt says which object is meant.
    """

    uses_quality = False

    def num_logits(self, num_classes: int) -> int:  # noqa: ARG002
        """One logit: whether there is an object."""
        return 1

    def classifier(self, hidden_dim: int, num_classes: int) -> nn.Module:  # noqa: ARG002
        """Makes the three layers that compute the logit."""
        return MLP(hidden_dim, hidden_dim, 1, 3)

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """0 for all pairs: only masks and boxes decide."""
        return logits.new_zeros(labels.shape)

    def pair_weights(self, logits: Tensor, quality: Tensor, same_object: Tensor) -> Tensor:  # noqa: ARG002
        """All pairs weigh 1."""
        return torch.ones_like(quality)

    def loss(self, logits: Tensor, targets: ClassTargets) -> tuple[Tensor, Tensor | None]:  # noqa: ARG002
        """0, because :class:`PromptCriterion` computes the loss of the IoU."""
        return torch.zeros_like(logits[..., 0]), None

    def probabilities(self, logits: Tensor) -> ClassProbabilities:
        """The expected IoU, cut to [0, 1], of the only class."""
        quality = logits.clamp(0, 1)
        return ClassProbabilities(quality, quality, quality[..., 0])


class WithinPrompts(Assignment):
    """The masks of a prompt get different queries of that prompt, so that the total cost is lowest.

    Args:
        prompts: for each image, (N,) int64: the prompt that each mask answers.
        queries: number of queries for a prompt.
    """

    def __init__(self, prompts: Sequence[Tensor], queries: int):
        self.prompts, self.queries = prompts, queries

    def pairs(
        self,
        values: Sequence[Tensor | None],
        counts: Sequence[int],  # noqa: ARG002
    ) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`~detrex.modeling.Assignment.pairs`."""
        return [self._image(cost, prompt) for cost, prompt in zip(values, self.prompts, strict=True)]

    def _image(self, cost: Tensor | None, prompts: Tensor) -> tuple[Tensor, Tensor]:
        assert cost is not None
        finite = cost.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6)
        queries, masks = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.int64)]
        for prompt in prompts.unique().tolist():
            of_prompt = (prompts == prompt).nonzero().squeeze(1)
            first = prompt * self.queries
            query, mask = linear_sum_assignment(finite[first : first + self.queries, of_prompt].numpy())
            queries.append(torch.from_numpy(query) + first)
            masks.append(of_prompt[torch.from_numpy(mask)])
        return torch.cat(queries), torch.cat(masks)


class PromptCriterion(SetCriterion):
    """Weighted losses of the queries that answer with a mask; all others have none.

    Args:
        quality_weight: of the squared error between the expected IoU and one minus the dice loss.
        match_every_layer: match the queries of every layer separately. Otherwise, the last layer's matches
            hold for all layers (published).
        detach_quality: stop the gradient of that error into masks, which the published training has.
        rate_all: teach all queries of a prompt which IoU to expect, including those without a mask to answer
            with, by the mask of the prompt that they fit best. The published training does not teach these,
            so that they may expect anything.
        criterion: all other arguments are those of :class:`~detrex.modeling.SetCriterion`.
    """

    def __init__(
        self,
        quality_weight: float = 1.0,
        match_every_layer: bool = False,
        detach_quality: bool = False,
        rate_all: bool = False,
        **criterion,
    ):
        super().__init__(**criterion)
        self.quality_weight, self.match_every_layer = quality_weight, match_every_layer
        self.detach_quality, self.rate_all = detach_quality, rate_all

    def forward(
        self,
        predictions: Sequence[SupervisedPrediction],
        pixel_embed: Tensor | None,
        targets: BatchTargets,
    ) -> dict[str, Tensor]:
        """Losses by name: ``loss_iou``, and those of :class:`~detrex.modeling.SetCriterion` except classes.

        Args:
            predictions: of all layers, in order.
            pixel_embed: (B, D, H / 4, W / 4).
            targets: masks, each once for every prompt that it answers.
        """
        device = targets.labels.device
        with torch.autocast(device.type, enabled=False):
            matches = self._matches(predictions, pixel_embed, targets)
            joined = JoinedPredictions.join(predictions, matches, len(targets.counts))
            objects = mean_over_processes(torch.full((), float(len(targets)), device=device)).clamp(min=1)
            losses = {**self._box_losses(joined, targets), **self._mask_losses(joined, pixel_embed, targets)}
            expected = joined.prediction.logits[joined.matches.image, joined.query, 0]  # (M,)
            quality = 1 - losses["loss_dice"][1]  # (M,)
            error = (expected - (quality.detach() if self.detach_quality else quality)) ** 2  # (M,)
            losses["loss_iou"] = self.quality_weight, error
            rest = (
                self._unmatched_errors(predictions, joined, pixel_embed, targets) if self.rate_all else None
            )
        found = {}
        for name, (weight, per_pair) in losses.items():
            per_prediction = weight * joined.sum_by_prediction(per_pair) / objects
            if name == "loss_iou" and rest is not None:
                per_prediction = per_prediction + weight * rest / objects
            for prediction, value in zip(predictions, per_prediction, strict=True):
                found[name + prediction.loss_suffix] = value
        return found

    def _unmatched_errors(
        self,
        predictions: Sequence[SupervisedPrediction],
        joined: JoinedPredictions,
        pixel_embed: Tensor | None,
        targets: BatchTargets,
    ) -> Tensor:
        """Squared errors of the expected IoUs of queries without a match, summed by prediction (P,)."""
        every = JoinedPredictions.join(predictions, _all_pairs(predictions), len(targets.counts))
        image, query = every.matches.image, every.query
        with torch.no_grad():
            fit = 1 - self._mask_losses(every, pixel_embed, targets)["loss_dice"][1]  # (M,)
            best = torch.full_like(joined.prediction.logits[..., 0], -1.0)  # (B, Q)
            flat = image * best.shape[1] + query
            best.view(-1).scatter_reduce_(0, flat, fit, "amax")
            best[joined.matches.image, joined.query] = -1
        error = torch.where(best >= 0, joined.prediction.logits[..., 0] - best, 0.0) ** 2
        return torch.stack([part.sum() for part in error.split(joined.sizes, 1)])

    def _matches(
        self, predictions: Sequence[SupervisedPrediction], pixel_embed: Tensor | None, targets: BatchTargets
    ) -> Matches:
        if self.match_every_layer:
            return self.matcher(predictions, pixel_embed, targets)
        last = self.matcher(predictions[-1:], pixel_embed, targets)
        stages = torch.arange(len(predictions)).repeat_interleave(len(last.stage))
        repeated = [column.repeat(len(predictions)) for column in (last.image, last.query, last.object)]
        return Matches(stages, *repeated)


def _all_pairs(predictions: Sequence[SupervisedPrediction]) -> Matches:
    """Every query of a prompt with every mask that answers it, in all predictions."""
    assignment = predictions[-1].assignment
    assert isinstance(assignment, WithinPrompts)
    size, first, columns = assignment.queries, 0, []
    for image, prompt in enumerate(assignment.prompts):
        query = (prompt[:, None] * size + torch.arange(size)).flatten()
        number = torch.arange(first, first + len(prompt)).repeat_interleave(size)
        columns.append(torch.stack([torch.full_like(query, image), query, number]))
        first += len(prompt)
    joined = torch.cat(columns, 1)
    stage = torch.arange(len(predictions)).repeat_interleave(joined.shape[1])
    return Matches(stage, *joined.repeat(1, len(predictions)))
