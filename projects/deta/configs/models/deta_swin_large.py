"""DETA with a Swin-L and five levels."""

from detrex.config import LazyCall as L
from detrex.modeling import SwinBackbone

from .deta_r50 import model

model.backbone = L(SwinBackbone)(
    name="swin_large_patch4_window12_384.ms_in22k",
    strides=[8, 16, 32],
    pretrained=False,
    options=dict(drop_path_rate=0.2),
)
