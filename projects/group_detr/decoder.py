"""The decoder layers as Group DETR's published code trains them.

Shape letters: B images, G groups, Q queries of a group, D channels.
"""

from __future__ import annotations

from torch import Tensor

from detrex.layers import ConditionalDecoderLayer, QueryPosition
from detrex.modeling import ConditionalDecoderLayers


class MixedGroupsLayer(ConditionalDecoderLayer):
    """A layer that, in training, gives a query the result of self-attention for another query.

    The paper (arXiv 2207.13085) keeps groups apart. The published code lets all queries see one another, and
    gives the result for query q of group g to the query at place q * G + g. This does not affect inference,
    which has one group.

    Attributes:
        num_groups: G in training.
    """

    num_groups = 1

    def attend_to_queries(self, content: Tensor, position: QueryPosition, blocked: Tensor | None) -> Tensor:
        """See the base class, with the results mixed up: (B, G * Q, D)."""
        attended = super().attend_to_queries(content, position, blocked)
        groups = self.num_groups if self.training else 1
        return attended.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class MixedGroupsLayers(ConditionalDecoderLayers):
    """Layers of :class:`MixedGroupsLayer`.

    Args:
        num_groups: G in training.
        hidden_dim, ffn_dim, num_heads, num_layers, dropout: see
            :class:`~detrex.modeling.ConditionalDecoderLayers`.
    """

    layer_type = MixedGroupsLayer

    def __init__(
        self,
        num_groups: int,
        hidden_dim: int = 256,
        ffn_dim: int = 2048,
        num_heads: int = 8,
        num_layers: int = 6,
        dropout: float = 0.0,
    ):
        super().__init__(hidden_dim, ffn_dim, num_heads, num_layers, dropout)
        for layer in self:
            layer.num_groups = num_groups
