"""DINO with a FocalNet-L of three focal levels, and four levels; others take its place by their names."""

from detrex.config import LazyCall as L
from detrex.modeling import NormedTimmBackbone

from .dino_r50 import model

model.backbone = L(NormedTimmBackbone)(
    name="focalnet_large_fl3.ms_in22k",
    strides=[8, 16, 32],
    pretrained=False,
    options=dict(drop_path_rate=0.3),
    norm_eps=1e-5,
)
