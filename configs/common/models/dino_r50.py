"""DINO with a ResNet-50 and four levels (4scale): boxes from proposals, contrastive denoising."""

from detrex.config import LazyCall as L
from detrex.modeling import BoxPosition, ContrastiveDenoising, ProposalQueries

from .detection import deformable_decoder, deformable_encoder, model

model.backbone.strides = [8, 16, 32]
model.encoder = deformable_encoder
model.decoder = deformable_decoder
model.decoder.query_init = L(ProposalQueries)(
    num_queries=900,
    hidden_dim="${..layers.hidden_dim}",
    anchor_sizes=[0.05, 0.1, 0.2, 0.4],
    learned_content=True,
)
model.decoder.position = L(BoxPosition)(hidden_dim="${..layers.hidden_dim}")
model.decoder.heads.num_sets = "${..layers.num_layers}"
model.decoder.heads.own_proposals = True
model.decoder.refine_boxes = True
model.decoder.look_forward_twice = True
model.denoising = L(ContrastiveDenoising)(
    num_classes="${..num_classes}",
    hidden_dim="${..encoder.hidden_dim}",
    num_queries=100,
)
