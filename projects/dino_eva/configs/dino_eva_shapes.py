"""A small DINO with an EVA-02 of four blocks on the boxes of the embedded shapes.

    python tools/train_net.py --config-file projects/dino_eva/configs/dino_eva_shapes.py

What it reaches is in docs/family.md.
"""

from detrex.config import get_config

from .models.dino_eva_02_base import model

_run = get_config("common/shapes_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

_small = get_config("common/models/small.py").two_stage
model.num_classes = _small["num_classes"]
model.encoder.merge_with({**_small["encoder"], "strides": [8, 16, 32, 64]})
model.decoder.merge_with(_small["decoder"])
model.decoder.layers.num_levels = 4
model.decoder.query_init.anchor_sizes = [0.1, 0.2, 0.4, 0.8]
model.denoising.num_queries = 20
model.backbone.embed_dim = 128
model.backbone.depth = 4
model.backbone.num_heads = 4
model.backbone.mlp_dim = 256
model.backbone.window = 4
model.backbone.global_blocks = [1, 3]
model.backbone.image_size = 96
model.backbone.channels = 64

train.output_dir = "output/dino_eva_shapes"
