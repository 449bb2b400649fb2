"""A small DINO on the boxes of the embedded shapes.

python tools/train_net.py --config-file projects/dino/configs/dino_shapes.py
"""

from detrex.config import get_config

from .models.dino_r50 import model

_run = get_config("common/shapes_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

model.merge_with(get_config("common/models/small.py").deformable)
model.decoder.query_init.anchor_sizes = [0.1, 0.2, 0.4]
model.denoising.num_queries = 20

train.output_dir = "output/dino_shapes"
