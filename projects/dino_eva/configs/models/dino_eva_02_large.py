"""DINO with EVA-02-L, four of whose blocks attend to the whole map of 1024 x 1024 pixels, and four levels."""

from .dino_eva_02_base import model

model.backbone.embed_dim = 1024
model.backbone.depth = 24
model.backbone.num_heads = 16
model.backbone.mlp_dim = 2730  # two thirds of four times 1024
model.backbone.global_blocks = [5, 11, 17, 23]
model.backbone.drop_path_rate = 0.3
