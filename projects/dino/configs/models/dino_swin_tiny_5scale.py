"""DINO with a Swin-T and five levels, from stride 4 on."""

from .dino_r50_5scale import model
from .dino_swin_tiny import model as _four_scales

_strides = model.backbone.strides
model.backbone = _four_scales.backbone
model.backbone.strides = _strides
