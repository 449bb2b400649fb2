"""H-Deformable-DETR with a ResNet-50: two-stage Deformable DETR that also learns from a one-to-many group."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import OneToMany
from projects.h_deformable_detr.hybrid import HybridProposals

_common = get_config("common/models/detection.py")

model = _common.model
model.backbone.strides = [8, 16, 32]
model.encoder = _common.deformable_encoder
model.decoder = _common.deformable_decoder
model.decoder.refine_boxes = True
model.decoder.look_forward_twice = True
model.decoder.heads.norm = False
model.decoder.heads.own_proposals = True
model.decoder.heads.num_sets = "${..layers.num_layers}"
model.decoder.query_init = L(HybridProposals)(
    num_queries=300,
    num_extra=1500,
    hidden_dim="${..layers.hidden_dim}",
    extra_assignment=L(OneToMany)(copies=6),
)
model.criterion.class_weight = 2.0
