"""Proposals whose scores tie within rounding, where the order is the machine's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from detrex.modeling import PredictionHeads

# Scores are of the order of 1, and the encoder's rounding is a few times this.
TIE = 1e-6


@contextmanager
def ties_swapped() -> Iterator[None]:
    """Within it, every two consecutive proposals of training with different scores that tie change places.

    It matters where queries have learned contents by the rank of their proposals, as in DINO: with the same
    boxes, two queries of another order are two other queries, and so are all losses and gradients. (In the
    second image of DINO's training batch two scores are 7e-7 apart.)
    """
    logits_of = PredictionHeads.proposal_logits

    def swapped(self: PredictionHeads, tokens: Tensor) -> Tensor:
        scores = logits_of(self, tokens)
        if not self.training:
            return scores
        scores = scores.detach().clone()
        best, order = scores.amax(-1).sort(1, descending=True)
        gaps = best[:, :-1] - best[:, 1:]
        for image, rank in ((gaps > 0) & (gaps < TIE)).nonzero().tolist():
            pair = order[image, rank : rank + 2]
            scores[image, pair] = scores[image, pair.flip(0)]
        return scores

    PredictionHeads.proposal_logits = swapped
    try:
        yield
    finally:
        PredictionHeads.proposal_logits = logits_of
