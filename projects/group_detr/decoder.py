"""The decoder as Group DETR's published code trains it.

Shape letters: B images, G groups, Q queries of a group, D channels.
"""

from __future__ import annotations

from torch import Tensor

from detrex.layers import ConditionalDecoderLayer, QueryPosition
from detrex.modeling import ConditionalDecoder, DenoisingQueries, InitialQueries


class MixedGroupsLayer(ConditionalDecoderLayer):
    """In training, query i of group g gets what self-attention found for another query.

    The paper (arXiv 2207.13085) keeps groups apart. The published code lets all queries see one another, and
    hands the result for query q of group g to the query at place q * G + g. Inference, with one group, is
    not concerned.

    Attributes:
        num_groups: G in training.
    """

    num_groups = 1

    def attend_to_queries(self, content: Tensor, position: QueryPosition, blocked: Tensor | None) -> Tensor:
        attended = super().attend_to_queries(content, position, blocked)
        groups = self.num_groups if self.training else 1
        return attended.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class MixedGroupsDecoder(ConditionalDecoder):
    """Decoder of :class:`MixedGroupsLayer`; arguments of :class:`~detrex.modeling.ConditionalDecoder`."""

    layer_type = MixedGroupsLayer

    def __init__(self, **options):
        super().__init__(**options)
        for layer in self.layers:
            layer.num_groups = self.query_init.num_groups

    def blocked(self, start: InitialQueries, denoising: DenoisingQueries | None) -> Tensor | None:  # noqa: ARG002
        """All queries see one another."""
        return None
