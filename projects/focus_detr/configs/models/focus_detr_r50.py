"""Focus-DETR with a ResNet-50 and four levels: DINO with an encoder of foreground tokens."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from projects.focus_detr.focus import FocusEncoder

model = get_config("common/models/dino_r50.py").model
model._target_ = "projects.focus_detr.focus.FocusDetector"
model.encoder = L(FocusEncoder)(in_channels=model.encoder.in_channels, position_offset=-0.5)
