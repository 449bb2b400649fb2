"""Anchor DETR with a ResNet-50: 300 anchor points with three patterns each."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from projects.anchor_detr.model import (
    PatternPoints,
    PointPosition,
    RowColumnDecoderLayers,
    RowColumnEncoder,
)

_common = get_config("common/models/detection.py")

model = _common.model
model._target_ = "projects.anchor_detr.model.AnchorDetector"
model.backbone.frozen_stages = 2
model.encoder = L(RowColumnEncoder)(in_channels=_common.plain_encoder.in_channels)
model.decoder = _common.decoder
model.decoder.query_init = L(PatternPoints)(hidden_dim="${..layers.hidden_dim}")
model.decoder.position = L(PointPosition)(hidden_dim="${..layers.hidden_dim}")
model.decoder.layers = L(RowColumnDecoderLayers)(hidden_dim="${...encoder.hidden_dim}")
model.decoder.heads.norm = False
model.decoder.heads.size_bias = -2.0
model.criterion.class_weight = 2.0
model.postprocess.instance.max_detections = 100
