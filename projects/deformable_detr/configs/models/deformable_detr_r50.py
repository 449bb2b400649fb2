"""Deformable DETR with a ResNet-50: four levels, 300 learned queries that look around a point."""

from torch.nn import Linear

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import LearnedPositions

_common = get_config("common/models/detection.py")

model = _common.model
model.backbone.strides = [8, 16, 32]
model.encoder = _common.deformable_encoder
model.encoder.ffn_dim = 1024
model.encoder.dropout = 0.1
model.decoder = _common.deformable_decoder
model.decoder.layers.ffn_dim = 1024
model.decoder.layers.dropout = 0.1
model.decoder.query_init = L(LearnedPositions)(
    num_queries=300,
    hidden_dim="${..layers.hidden_dim}",
    learned_content=True,
    point=L(Linear)(in_features="${..hidden_dim}", out_features=2),
)
model.decoder.heads.norm = False
