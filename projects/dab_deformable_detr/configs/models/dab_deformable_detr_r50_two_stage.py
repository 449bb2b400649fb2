"""Two-stage DAB-Deformable-DETR: queries take content and box from the encoder's best proposals."""

from detrex.config import LazyCall as L
from detrex.modeling import ProposalQueries

from .dab_deformable_detr_r50 import model

model.decoder.query_init = L(ProposalQueries)(num_queries=300, hidden_dim="${..layers.hidden_dim}")
model.decoder.heads.own_proposals = True
model.decoder.heads.size_bias = 0.0
