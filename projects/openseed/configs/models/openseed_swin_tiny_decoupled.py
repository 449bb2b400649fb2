"""OpenSeeD with queries of their own for stuff, texts of up to 77 tokens, and two data sets in training."""

from detrex.config import LazyCall as L
from projects.openseed.queries import DecoupledQueries

from .openseed_swin_tiny import model

model.text.context_length = 77
model.decoder.query_init = L(DecoupledQueries)(
    num_queries=300,
    num_stuff=100,
    hidden_dim="${..layers.hidden_dim}",
    anchor_sizes=[0.4, 0.2, 0.1, 0.05],
)
# Queries for stuff make no instances.
model.postprocess.instance.num_queries = "${...decoder.query_init.num_queries}"
model.postprocess.instance.max_detections = 300
