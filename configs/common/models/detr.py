"""DETR with a ResNet-50: plain attention over the coarsest map, 100 learned queries, softmax classes."""

from detrex.config import LazyCall as L
from detrex.modeling import LearnedPositions, SoftmaxScore

from .detection import decoder as _decoder
from .detection import model, plain_encoder

model.class_score = L(SoftmaxScore)(no_object_weight=0.1)
model.encoder = plain_encoder
model.decoder = _decoder
model.decoder.query_init = L(LearnedPositions)(num_queries=100, hidden_dim="${..layers.hidden_dim}")
model.criterion.matcher.class_cost = 1.0
model.postprocess.instance.one_per_query = True
