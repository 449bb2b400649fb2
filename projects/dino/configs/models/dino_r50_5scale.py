"""DINO with a ResNet-50 and five levels, from stride 4 on (5scale)."""

from .dino_r50 import model

model.backbone.strides = [4, 8, 16, 32]
model.encoder.strides = [4, 8, 16, 32, 64]
model.decoder.layers.num_levels = 5
model.decoder.query_init.anchor_sizes = [0.05, 0.1, 0.2, 0.4, 0.8]
