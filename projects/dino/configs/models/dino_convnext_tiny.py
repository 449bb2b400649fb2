"""DINO with a ConvNeXt-T and four levels; ConvNeXt-S, -B and -L take its place by their names."""

from detrex.config import LazyCall as L
from detrex.modeling import NormedTimmBackbone

from .dino_r50 import model

model.backbone = L(NormedTimmBackbone)(
    name="convnext_tiny.fb_in1k",
    strides=[8, 16, 32],
    pretrained=False,
    options=dict(drop_path_rate=0.2),
    norm_eps=1e-6,
)
