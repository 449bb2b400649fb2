"""Selective query recollection (SQR, arXiv 2212.07593): layers also train on queries of earlier layers.

Shape letters: B images, S sets of queries, Q queries of a set, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detrex.layers import inverse_sigmoid
from detrex.modeling import Decoder, LearnedBoxes, PredictionHeads, QueryGroup, QuerySource
from detrex.modeling.encoder import run
from detrex.modeling.queries import QueryState, blocked_pairs
from detrex.modeling.queries.group import join
from detrex.modeling.queries.position import QueryPositionEncoder
from detrex.structures import Prediction, Pyramid


class RecollectingDecoder(Decoder):
    """A decoder that refines boxes, whose layers also train on queries that skipped the layer before.

    In training, the first layer gets the initial queries. The second gets its result and the initial queries
    again, and each later one the results of the two layers before it: 1, 2, 3, 5, 8, 13 sets of queries. A
    set sees only itself. All are supervised in the order in which they are made. Inference is that of
    :class:`~detrex.modeling.Decoder`.

    Args:
        query_init, position, heads, layers, look_forward_twice, checkpointing, logit_eps: see
            :class:`~detrex.modeling.Decoder`.

    Raises:
        ValueError: each layer has its own heads.
    """

    def __init__(
        self,
        query_init: QuerySource,
        position: QueryPositionEncoder,
        heads: PredictionHeads,
        layers: Sequence[nn.Module],
        look_forward_twice: bool = True,
        checkpointing: bool = False,
        logit_eps: float = 1e-3,
    ):
        if heads.num_sets > 1:
            raise ValueError("recollected queries share their heads: set model.decoder.heads.num_sets=1")
        super().__init__(
            query_init, position, heads, layers, True, look_forward_twice, False, checkpointing, logit_eps
        )

    def stages(self, groups: Sequence[QueryGroup], memory: Pyramid) -> tuple[list[Prediction], Tensor]:
        """See :meth:`~detrex.modeling.Decoder.stages`; in training the predictions (B, Q) of all sets."""
        if not self.training:
            return super().stages(groups, memory)
        content, reference, learned = join(groups)
        blocked = blocked_pairs(groups)
        # Contents, references around which layers attend, and references from which boxes are predicted.
        sets = [(content, reference, reference)]
        predictions: list[Prediction] = []
        first, next_first = 0, 0
        for i, layer in enumerate(self.layers):
            seen = sets[first:]
            first, next_first = next_first, len(sets)
            content, fixed, reference = (
                torch.cat(values) for values in zip(*seen, strict=True)
            )  # (S * B, Q, ·)
            fixed = fixed.detach() if i > 0 else fixed  # only the first layer moves the first boxes
            tokens = memory.repeated(len(seen))
            place = None if learned is None else learned.repeat(len(seen), 1, 1)
            position = self.position(QueryState(i, content, fixed, place, tokens))
            content = run(layer, content, position, tokens, blocked, checkpointing=self.checkpointing)
            predicted = self.predict(i, content, reference)
            logits, boxes = (v.chunk(len(seen)) for v in (predicted.logits, predicted.boxes))
            predictions += [Prediction(*pair) for pair in zip(logits, boxes, strict=True)]
            moved = self.refined(i, content, fixed)
            fixed = moved.detach()
            reference = moved if self.look_forward_twice else fixed
            sets += zip(*(v.chunk(len(seen)) for v in (content, fixed, reference)), strict=True)
        return predictions, sets[-1][0]


class EvenCentres(LearnedBoxes):
    """Learned boxes whose centres start evenly spread, with contents that start from 0.

    Args:
        num_queries: Q.
        hidden_dim: D.
    """

    def __init__(self, num_queries: int = 300, hidden_dim: int = 256):
        super().__init__(num_queries, hidden_dim, learned_content=False)
        with torch.no_grad():
            centres: Tensor = self.reference.weight[:, :2]
            centres.copy_(inverse_sigmoid(torch.rand_like(centres)))
