"""DN-DETR with a ResNet-50: DAB-DETR that learns to restore noised boxes besides."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import IndicatedDenoising
from projects.dn_detr.queries import IndicatedBoxes

model = get_config("common/models/dab_detr.py").model
model.decoder.query_init = L(IndicatedBoxes)(num_queries=300, hidden_dim="${..layers.hidden_dim}")
model.denoising = L(IndicatedDenoising)(
    num_classes="${..num_classes}",
    hidden_dim="${..encoder.hidden_dim}",
)
