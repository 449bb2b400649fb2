"""PnP-DETR with a ResNet-50: DETR on half of the tokens and 30 that stand for the rest."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from projects.pnp_detr.sampling import SampledEncoder

model = get_config("common/models/detr.py").model
model.encoder = L(SampledEncoder)(in_channels=model.encoder.in_channels, dropout=0.1)
