"""H-Deformable-DETR with a ResNet-50: two-stage Deformable DETR that also learns from a one-to-many group."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from projects.h_deformable_detr.hybrid import HybridCriterion, HybridProposals

_common = get_config("common/models/detection.py")

model = _common.model
model.backbone.strides = [8, 16, 32]
model.encoder = _common.deformable_encoder
model.decoder = _common.deformable_decoder
model.decoder.refine_boxes = True
model.decoder.heads.merge_with(dict(norm=False, own_proposals=True, num_sets="${..num_layers}"))
model.decoder.query_init = L(HybridProposals)(
    num_queries=300, num_extra=1500, hidden_dim="${..hidden_dim}", anchor_sizes=[0.05, 0.1, 0.2, 0.4]
)
model.criterion._target_ = f"{HybridCriterion.__module__}.{HybridCriterion.__qualname__}"
model.criterion.copies = 6
model.criterion.class_loss.weight = 2.0
