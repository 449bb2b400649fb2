"""DINO with a ResNet-50, four levels, and the mask head of Mask DINO; see `projects/dino/MASKS.md`."""

from detrex.config import LazyCall as L
from detrex.modeling import PixelHead, RandomPoints

from .dino_r50 import model

model.backbone.strides = [4, 8, 16, 32]
model.size_divisor = 32  # so that cells of the masks end where the padded batch does
model.pixel_head = L(PixelHead)(
    in_channels="${..encoder.in_channels}", hidden_dim="${..encoder.hidden_dim}", mask_dim=256
)
model.decoder.heads.mask_dim = "${...pixel_head.mask_dim}"
model.criterion.mask_weight = model.criterion.matcher.mask_cost = 5.0
model.criterion.dice_weight = model.criterion.matcher.dice_cost = 5.0
model.criterion.points = L(RandomPoints)(num_points=12544)
model.postprocess.instance.max_detections = 100
