"""A small PnP-DETR on the boxes of the embedded shapes.

    python tools/train_net.py --config-file projects/pnp_detr/configs/pnp_detr_shapes.py

What it reaches is in docs/family.md.
"""

from detrex.config import get_config

from .models.pnp_detr_r50 import model

_run = get_config("common/shapes_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

model.merge_with(get_config("common/models/small.py").plain)
model.encoder.num_pooled = 10

train.output_dir = "output/pnp_detr_shapes"
