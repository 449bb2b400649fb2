"""CO-MOT with a ResNet-50: Deformable DETR whose queries, in sets of three, follow people through a video."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import SinePosition
from projects.co_mot.tracking import TrackQueries

_common = get_config("common/models/detection.py")

model = _common.model
model._target_ = "projects.co_mot.tracking.TrackingDetector"
model.num_classes = 1
model.backbone.strides = [8, 16, 32]
model.encoder = _common.deformable_encoder
model.encoder.ffn_dim = 1024
model.decoder = _common.deformable_decoder
model.decoder.layers.ffn_dim = 1024
model.decoder.query_init = L(TrackQueries)(
    num_queries=60,
    set_size=3,
    hidden_dim="${..layers.hidden_dim}",
    ffn_dim="${..layers.ffn_dim}",
)
model.decoder.position = L(SinePosition)(hidden_dim="${..layers.hidden_dim}")
model.decoder.heads.norm = False
model.decoder.heads.num_sets = "${..layers.num_layers}"
model.decoder.refine_boxes = True
model.criterion.class_weight = 2.0
model.postprocess.instance.one_per_query = True
