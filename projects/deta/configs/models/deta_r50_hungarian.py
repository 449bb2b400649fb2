"""DETA's baseline with a ResNet-50: the same queries and levels, Hungarian matching, no suppression."""

from detrex.config import LazyCall as L
from detrex.modeling import InstanceInference

from .deta_r50 import model

model.backbone.frozen_stages = 1
model.decoder.query_init.nms_iou = None
model.decoder.query_init.assignment = None
model.decoder.query_init.proposal_assignment = None
model.postprocess.instance = L(InstanceInference)(max_detections=300, clip_boxes=True)
