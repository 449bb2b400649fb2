"""DAB-DETR with a ResNet-50: queries are anchor boxes, which every layer refines."""

from detrex.config import LazyCall as L
from detrex.modeling import AnchorPosition, ConditionalDecoder, LearnedBoxes

from .detection import heads as _heads
from .detection import model, plain_encoder

model.encoder = plain_encoder
model.encoder.dropout = 0.0
model.encoder.prelu = True
model.encoder.temperature = 20.0
model.encoder.scaled_position = True
model.decoder = L(ConditionalDecoder)(
    query_init=L(LearnedBoxes)(num_queries=300, hidden_dim="${..hidden_dim}", learned_content=False),
    position=L(AnchorPosition)(hidden_dim="${..hidden_dim}"),
    heads=_heads,
    hidden_dim="${..encoder.hidden_dim}",
    ffn_dim=2048,
    num_heads=8,
    num_layers=6,
    dropout=0.0,
    prelu=True,
    refine_boxes=True,
    look_forward_twice=True,
    checkpointing=False,
    logit_eps=1e-3,
)
