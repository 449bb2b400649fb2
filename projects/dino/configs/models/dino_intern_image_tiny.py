"""DINO with an InternImage-T and four levels."""

from detrex.config import LazyCall as L
from detrex.modeling import InternImage, intern_image_channels

from .dino_r50 import model

model.backbone = L(InternImage)(
    width=64,
    depths=[4, 4, 18, 4],
    groups=4,
    offset_scale=1.0,
    post_norm=False,
    strides=[8, 16, 32],
    drop_path_rate=0.2,
)
model.encoder.in_channels = L(intern_image_channels)(
    width="${...backbone.width}", strides="${...backbone.strides}"
)
