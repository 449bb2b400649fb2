"""DINO with a ViT-L in windows, its simple feature pyramid, and four levels."""

from .dino_vitdet_base import model

model.backbone.embed_dim = 1024
model.backbone.depth = 24
model.backbone.num_heads = 16
model.backbone.mlp_dim = 4096
model.backbone.global_blocks = [5, 11, 17, 23]
model.backbone.drop_path_rate = 0.4
