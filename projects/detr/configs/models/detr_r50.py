"""DETR with a ResNet-50: plain attention over the coarsest map, 100 learned queries, softmax classes."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import FixedPosition, LearnedPositions, PlainDecoder, SoftmaxClassLoss

_common = get_config("common/models/detection.py")

model = _common.model
model.encoder = _common.plain_encoder
model.decoder = L(PlainDecoder)(
    query_init=L(LearnedPositions)(num_queries=100, hidden_dim="${..hidden_dim}"),
    position=L(FixedPosition)(),
    heads=_common.heads,
    hidden_dim="${..encoder.hidden_dim}",
    ffn_dim=2048,
    num_heads=8,
    num_layers=6,
    dropout=0.1,
    checkpointing=False,
)
model.decoder.heads.no_object_class = True
model.criterion.class_loss = L(SoftmaxClassLoss)(weight=1.0, no_object_weight=0.1)
model.criterion.matcher.class_cost = 1.0
model.criterion.matcher.softmax_classes = True
model.postprocess.instance.one_per_query = True
