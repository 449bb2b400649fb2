"""DINO with a ResNet-50 and four levels (4scale): boxes from proposals, contrastive denoising."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import BoxPosition, ContrastiveDenoising, ProposalQueries

_common = get_config("common/models/detection.py")

model = _common.model
model.backbone.strides = [8, 16, 32]
model.encoder = _common.deformable_encoder
model.encoder.ffn_dim = 2048
model.encoder.dropout = 0.0
model.decoder = _common.deformable_decoder
model.decoder.query_init = L(ProposalQueries)(
    num_queries=900,
    hidden_dim="${..hidden_dim}",
    anchor_sizes=[0.05, 0.1, 0.2, 0.4],
    box_init="no",
    learned_content=True,
)
model.decoder.position = L(BoxPosition)(hidden_dim="${..hidden_dim}")
model.decoder.heads.num_sets = "${..num_layers}"
model.decoder.heads.own_proposals = True
model.decoder.ffn_dim = 2048
model.decoder.dropout = 0.0
model.decoder.refine_boxes = True
model.decoder.look_forward_twice = True
model.denoising = L(ContrastiveDenoising)(
    num_classes="${..num_classes}",
    hidden_dim="${..encoder.hidden_dim}",
    num_queries=100,
    label_noise=0.5,
    box_noise=1.0,
)
