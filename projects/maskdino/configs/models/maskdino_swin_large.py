"""Mask DINO with a Swin-L of windows of 12, five levels and 300 queries: the larger published COCO model."""

from detrex.config import LazyCall as L
from detrex.modeling import SwinBackbone

from .maskdino_r50_five_levels import model

model.backbone = L(SwinBackbone)(
    name="swin_large_patch4_window12_384.ms_in22k",
    strides=[4, 8, 16, 32],
    pretrained=False,
    options=dict(drop_path_rate=0.3),
)
