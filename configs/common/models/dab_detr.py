"""DAB-DETR with a ResNet-50: queries are anchor boxes, which every layer refines."""

from detrex.config import LazyCall as L
from detrex.modeling import AnchorPosition, ConditionalDecoderLayers, LearnedBoxes

from .detection import decoder as _decoder
from .detection import model, plain_encoder

model.encoder = plain_encoder
model.encoder.dropout = 0.0
model.encoder.prelu = True
model.encoder.temperature = 20.0
model.encoder.scaled_position = True
model.decoder = _decoder
model.decoder.query_init = L(LearnedBoxes)(
    num_queries=300, hidden_dim="${..layers.hidden_dim}", learned_content=False
)
model.decoder.position = L(AnchorPosition)(hidden_dim="${..layers.hidden_dim}")
model.decoder.layers = L(ConditionalDecoderLayers)(hidden_dim="${...encoder.hidden_dim}", prelu=True)
model.decoder.refine_boxes = True
model.decoder.look_forward_twice = True
