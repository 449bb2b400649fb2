"""What makes a detector of the DETR family small enough to train from nothing within minutes on a CPU.

Merge one of these into a model's config, `model.merge_with(...)`: `plain` (plain attention to one level),
`deformable` (deformable attention to three) or `two_stage` (whose proposals become queries, too). The classes
are those of the training annotations.
"""

from detrex.config import LazyCall as L
from detrex.data import count_classes

_model = dict(
    num_classes=L(count_classes)(annotations="${dataloader.train.dataset.annotations}"),
    backbone=dict(
        name="resnet18",
        options=dict(channels=[32, 64, 128, 192], stem_type="deep_tiered", stem_width=8),
        frozen_norm=False,  # its statistics have to be learned, too, and the first layers
        frozen_stages=0,
    ),
    encoder=dict(hidden_dim=64, ffn_dim=256, num_heads=4, num_layers=2, dropout=0.0),
    decoder=dict(
        layers=dict(ffn_dim=256, num_heads=4, num_layers=3, dropout=0.0),
        query_init=dict(num_queries=30),
    ),
)

plain = {**_model, "backbone": {**_model["backbone"], "strides": [16]}}  # finer than the published 32

deformable = {
    **_model,
    "encoder": {**_model["encoder"], "strides": [8, 16, 32]},
    "decoder": {**_model["decoder"], "layers": {**_model["decoder"]["layers"], "num_levels": 3}},
}

two_stage = {
    **deformable,
    "decoder": {
        **deformable["decoder"],
        "query_init": {**_model["decoder"]["query_init"], "anchor_sizes": [0.1, 0.2, 0.4]},
    },
}
