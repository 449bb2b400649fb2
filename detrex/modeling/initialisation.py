"""Initial weights of a whole model, where they are to differ from those that its parts begin with."""

from __future__ import annotations

from torch import nn

from detrex.layers import MLP, FeedForward


class PublishedInitialisation:
    """The weights from which the published Mask DINO was trained.

    Feed-forward networks, the outputs of self-attention and the encoding of reference boxes are
    Xavier-uniform (Glorot and Bengio 2010). Convolutions of the pixel head are uniform, with a variance of
    one over the number of their inputs, and biases of 0. The class head begins as any linear layer of
    PyTorch, while by default it takes every class for rare.
    """

    def __call__(self, model: nn.Module) -> None:
        """Draws these weights of a :class:`~detrex.modeling.Detector` anew, in place."""
        for module in (*model.encoder.modules(), *model.decoder.modules()):
            if isinstance(module, FeedForward):
                nn.init.xavier_uniform_(module.linear1.weight)
                nn.init.xavier_uniform_(module.linear2.weight)
            elif isinstance(module, nn.MultiheadAttention):
                nn.init.xavier_uniform_(module.out_proj.weight)
        for module in model.decoder.position.modules():
            if isinstance(module, MLP):
                for layer in module.layers:
                    nn.init.xavier_uniform_(layer.weight)
        for module in () if model.pixel_head is None else model.pixel_head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for heads in model.decoder.heads.sets:
            heads.classes.reset_parameters()
