"""Focus-DETR with a Swin-T and four levels; Swin-B and Swin-L take its place by their names."""

from detrex.config import LazyCall as L
from detrex.modeling import SwinBackbone

from .focus_detr_r50 import model

model.backbone = L(SwinBackbone)(
    name="swin_tiny_patch4_window7_224.ms_in1k",
    strides=[8, 16, 32],
    pretrained=False,
    options=dict(drop_path_rate=0.2),
)
