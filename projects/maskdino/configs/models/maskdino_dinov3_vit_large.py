"""Mask DINO with the ViT-L of DINOv3 and a simple pyramid, in the place of the published Swin-L."""

from detrex.config import LazyCall as L
from detrex.modeling import VitPyramid, pyramid_channels

from .maskdino_r50_five_levels import model

model.backbone = L(VitPyramid)(
    name="vit_large_patch16_dinov3.lvd1689m",
    strides=[4, 8, 16, 32],
    pretrained=False,
    channels=256,
    options=dict(drop_path_rate=0.3),
)
model.encoder.in_channels = L(pyramid_channels)(
    strides="${...backbone.strides}", channels="${...backbone.channels}"
)
