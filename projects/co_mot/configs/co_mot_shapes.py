"""A small CO-MOT on made videos of moving shapes.

    python tools/train_net.py --config-file projects/co_mot/configs/co_mot_shapes.py

Evaluation needs TrackEval: pip install 'detrex-maskdino[track]'. What it reaches is in docs/family.md.
"""

from detrex.config import get_config

from .models.co_mot_r50 import model

_run = get_config("common/shapes_run.py")
optimizer, scheduler, train = _run.optimizer, _run.scheduler, _run.train
dataloader = get_config("common/data/moving_shapes.py").dataloader

model.merge_with(get_config("common/models/small.py").deformable)
model.num_classes = 1
model.decoder.query_init.num_queries = 15
model.decoder.query_init.num_heads = 4

train.output_dir = "output/co_mot_shapes"
