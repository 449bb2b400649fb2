"""DETA with a ResNet-50 and five levels."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from projects.deta.assignment import OverlapAssignment, SuppressedInstances, SuppressedProposals

_common = get_config("common/models/detection.py")

model = _common.model
model.backbone.strides = [8, 16, 32]
model.backbone.frozen_stages = 2
model.encoder = _common.deformable_encoder
model.encoder.strides = [8, 16, 32, 64, 128]
model.decoder = _common.deformable_decoder
model.decoder.query_init = L(SuppressedProposals)(
    num_queries=900,
    hidden_dim="${..layers.hidden_dim}",
    assignment=L(OverlapAssignment)(positive_iou=0.6, most_positive=0.25),
    proposal_assignment=L(OverlapAssignment)(positive_iou=0.7, most_positive=128, class_agnostic=True),
)
model.decoder.layers.num_levels = 5
model.decoder.heads.norm = False
model.decoder.heads.own_proposals = True
model.decoder.heads.num_sets = "${..layers.num_layers}"
model.decoder.refine_boxes = True
model.postprocess.instance = L(SuppressedInstances)(max_detections=100, clip_boxes=True)
