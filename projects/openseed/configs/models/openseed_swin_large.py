"""OpenSeeD with a Swin-L of windows of 12, five levels from stride 4 on, and queries for stuff."""

from .openseed_swin_tiny_decoupled import model

model.backbone.name = "swin_large_patch4_window12_384.ms_in22k"
model.encoder.strides = [4, 8, 16, 32, 64]
model.decoder.layers.num_levels = 5
model.decoder.query_init.anchor_sizes = [0.8, 0.4, 0.2, 0.1, 0.05]
model.text.context_length = 18
