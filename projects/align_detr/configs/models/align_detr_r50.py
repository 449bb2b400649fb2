"""Align-DETR with a ResNet-50 and four levels: DINO with another class score and matching."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from projects.align_detr.align import AlignedScore, MixedMatching

model = get_config("common/models/dino_r50.py").model
model.class_score = L(AlignedScore)()
model.decoder.query_init.assignment = L(MixedMatching)()
model.decoder.query_init.proposal_assignment = L(MixedMatching)()
