"""DINO with a ViT-B in windows, its simple feature pyramid, and four levels."""

from detrex.config import LazyCall as L
from detrex.modeling import VitDet, pyramid_channels

from .dino_r50 import model

model.backbone = L(VitDet)(
    embed_dim=768,
    depth=12,
    num_heads=12,
    mlp_dim=3072,
    window=14,
    global_blocks=[2, 5, 8, 11],
    image_size=1024,
    strides=[8, 16, 32, 64],
    channels=256,
    drop_path_rate=0.1,
)
model.encoder.in_channels = L(pyramid_channels)(
    strides="${...backbone.strides}", channels="${...backbone.channels}"
)
