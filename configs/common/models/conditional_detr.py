"""Conditional DETR with a ResNet-50: queries look for places and contents apart."""

from detrex.config import LazyCall as L
from detrex.layers import MLP
from detrex.modeling import ConditionalDecoderLayers, ConditionalPosition, LearnedPositions

from .detection import decoder as _decoder
from .detection import model, plain_encoder

model.encoder = plain_encoder
model.decoder = _decoder
model.decoder.query_init = L(LearnedPositions)(
    num_queries=300,
    hidden_dim="${..layers.hidden_dim}",
    point=L(MLP)(in_dim="${..hidden_dim}", hidden_dim="${..hidden_dim}", out_dim=2, num_layers=2),
)
model.decoder.position = L(ConditionalPosition)(hidden_dim="${..layers.hidden_dim}")
model.decoder.layers = L(ConditionalDecoderLayers)(hidden_dim="${...encoder.hidden_dim}", dropout=0.1)
model.criterion.class_weight = 2.0
