"""Mask DINO with a ResNet-50, four levels and 300 queries: the model of the published COCO results.

Projects that build on Mask DINO change it. Whatever two parts must agree on stands once; the other place
refers to it.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import (
    BoxesFromMasks,
    BoxPosition,
    Denoising,
    PixelHead,
    ProposalQueries,
    PublishedInitialisation,
    RandomPoints,
)

_common = get_config("common/models/detection.py")

model = _common.model
model.backbone.strides = [4, 8, 16, 32]
model.backbone.frozen_stages = 0

model.encoder = _common.deformable_encoder
model.encoder.ffn_dim = 2048
model.encoder.position_offset = 0.0

model.pixel_head = L(PixelHead)(
    in_channels="${..encoder.in_channels}", hidden_dim="${..encoder.hidden_dim}", mask_dim=256
)

model.decoder = _common.deformable_decoder
model.decoder.query_init = L(ProposalQueries)(
    num_queries=300,
    hidden_dim="${..layers.hidden_dim}",
    # Finest level first; see ProposalQueries for why the coarsest level has the smallest anchors.
    anchor_sizes=[0.4, 0.2, 0.1, 0.05],
    box_init=L(BoxesFromMasks)(),
)
model.decoder.position = L(BoxPosition)(hidden_dim="${..layers.hidden_dim}")
model.decoder.heads.mask_dim = "${...pixel_head.mask_dim}"
model.decoder.heads.norm_again = True
model.decoder.layers.num_layers = 9
model.decoder.refine_boxes = True
model.decoder.look_forward_twice = True
model.decoder.initial_prediction = True
model.decoder.logit_eps = 1e-5

model.denoising = L(Denoising)(
    num_classes="${..num_classes}",
    hidden_dim="${..encoder.hidden_dim}",
    num_queries=100,
)

model.criterion.class_weight = 4.0
model.criterion.mask_weight = 5.0
model.criterion.dice_weight = 5.0
model.criterion.points = L(RandomPoints)(num_points=12544)
model.criterion.matcher.class_cost = 4.0
model.criterion.matcher.mask_cost = 5.0
model.criterion.matcher.dice_cost = 5.0

model.postprocess.instance.max_detections = 100
model.postprocess.instance.clip_boxes = False

model.initialisation = L(PublishedInitialisation)()  # null: the weights that its parts begin with
model.size_divisor = 32
model.mask_padding = False
