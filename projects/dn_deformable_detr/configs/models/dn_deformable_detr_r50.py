"""DN-Deformable-DETR with a ResNet-50: DAB-Deformable-DETR that learns to restore noised boxes besides."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import IndicatedDenoising
from projects.dn_deformable_detr.queries import IndicatedUniformBoxes

model = get_config("common/models/dab_deformable_detr.py").model
model.decoder.query_init = L(IndicatedUniformBoxes)(num_queries=300, hidden_dim="${..layers.hidden_dim}")
model.denoising = L(IndicatedDenoising)(
    num_classes="${..num_classes}",
    hidden_dim="${..encoder.hidden_dim}",
    label_noise=0.4,
    no_object_label=True,
)
