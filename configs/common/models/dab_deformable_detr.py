"""DAB-Deformable-DETR with a ResNet-50: learned boxes, deformable attention to four levels."""

from detrex.config import LazyCall as L
from detrex.modeling import ScaledBoxPosition, UniformBoxes

from .detection import deformable_decoder, deformable_encoder, model

model.backbone.strides = [8, 16, 32]
model.encoder = deformable_encoder
model.decoder = deformable_decoder
model.decoder.query_init = L(UniformBoxes)(num_queries=300, hidden_dim="${..layers.hidden_dim}")
model.decoder.position = L(ScaledBoxPosition)(hidden_dim="${..layers.hidden_dim}")
model.decoder.heads.norm = False
model.decoder.heads.num_sets = "${..layers.num_layers}"
model.decoder.heads.size_bias = -2.0
model.decoder.refine_boxes = True
