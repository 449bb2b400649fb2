"""H-Deformable-DETR with a Swin-T; a Swin-L takes its place by its name."""

from detrex.config import LazyCall as L
from detrex.modeling import SwinBackbone

from .h_deformable_detr_r50 import model

model.backbone = L(SwinBackbone)(
    name="swin_tiny_patch4_window7_224.ms_in1k",
    strides=[8, 16, 32],
    pretrained=False,
    options=dict(drop_path_rate=0.2),
)
