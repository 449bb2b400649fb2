"""DAB-DETR with a ResNet-50, whose decoder layers also train on queries that skipped the layer before."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from projects.sqr_detr.decoder import EvenCentres, RecollectingDecoder

model = get_config("common/models/dab_detr.py").model
_plain = model.decoder
model.decoder = L(RecollectingDecoder)(
    query_init=L(EvenCentres)(num_queries=300, hidden_dim="${..layers.hidden_dim}"),
    position=_plain.position,
    heads=_plain.heads,
    layers=_plain.layers,
)
