"""Two-stage Deformable DETR: queries are made from the boxes of the encoder's best proposals."""

from detrex.config import LazyCall as L
from detrex.modeling import EncodedProposals

from .deformable_detr_r50_refine import model

model.decoder.query_init = L(EncodedProposals)(num_queries=300, hidden_dim="${..layers.hidden_dim}")
model.decoder.heads.own_proposals = True
