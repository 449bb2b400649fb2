"""Conditional DETR with a ResNet-50: queries look for places and contents apart."""

from detrex.config import LazyCall as L
from detrex.layers import MLP
from detrex.modeling import ConditionalDecoder, ConditionalPosition, LearnedPositions

from .detection import heads as _heads
from .detection import model, plain_encoder

model.encoder = plain_encoder
model.decoder = L(ConditionalDecoder)(
    query_init=L(LearnedPositions)(
        num_queries=300,
        hidden_dim="${..hidden_dim}",
        point=L(MLP)(in_dim="${..hidden_dim}", hidden_dim="${..hidden_dim}", out_dim=2, num_layers=2),
        num_groups=1,
    ),
    position=L(ConditionalPosition)(hidden_dim="${..hidden_dim}"),
    heads=_heads,
    hidden_dim="${..encoder.hidden_dim}",
    ffn_dim=2048,
    num_heads=8,
    num_layers=6,
    dropout=0.1,
    prelu=False,
    refine_boxes=False,
    look_forward_twice=False,
    checkpointing=False,
    logit_eps=1e-3,
)
model.criterion.class_loss.weight = 2.0
