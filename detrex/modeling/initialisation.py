"""Initial weights of a whole model that differ from those that its parts draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from detrex.layers import FeedForward
from detrex.modeling.heads import HeadSet
from detrex.modeling.queries import BoxPosition

if TYPE_CHECKING:
    from detrex.modeling.detector import Detector


class PublishedInitialisation:
    """The weights from which the published Mask DINO was trained.

    Feed-forward networks, the outputs of self-attention and the encoding of reference boxes are
    Xavier-uniform (Glorot and Bengio 2010). Convolutions of the pixel head are uniform, with a variance of
    one over the number of their inputs, and have biases of 0. The class head is initialised like any linear
    layer of PyTorch; by default, it would give every class a low probability.
    """

    def __call__(self, model: Detector) -> None:
        """Draws these weights of ``model`` anew, in place."""
        for module in (*model.encoder.modules(), *model.decoder.modules()):
            if isinstance(module, FeedForward):
                nn.init.xavier_uniform_(module.linear1.weight)
                nn.init.xavier_uniform_(module.linear2.weight)
            elif isinstance(module, nn.MultiheadAttention):
                nn.init.xavier_uniform_(module.out_proj.weight)
            elif isinstance(module, BoxPosition):
                for layer in _linear_layers(module):
                    nn.init.xavier_uniform_(layer.weight)
            elif isinstance(module, HeadSet):
                for layer in _linear_layers(module.classes):
                    layer.reset_parameters()
        for module in () if model.pixel_head is None else model.pixel_head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _linear_layers(module: nn.Module) -> list[nn.Linear]:
    return [m for m in module.modules() if isinstance(m, nn.Linear)]
