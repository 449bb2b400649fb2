"""A small Group DETR on the boxes of the embedded shapes, with four groups.

    python tools/train_net.py --config-file projects/group_detr/configs/group_detr_shapes.py

What it reaches is in docs/family.md.
"""

from detrex.config import get_config

from .models.group_detr_r50 import model

_run = get_config("common/shapes_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

model.merge_with(get_config("common/models/small.py").plain)
model.decoder.query_init.num_groups = 4

train.output_dir = "output/group_detr_shapes"
