"""A small Focus-DETR on the boxes of the embedded shapes.

    python tools/train_net.py --config-file projects/focus_detr/configs/focus_detr_shapes.py

What it reaches is in docs/family.md.
"""

from detrex.config import get_config

from .models.focus_detr_r50 import model

_run = get_config("common/shapes_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

model.merge_with(get_config("common/models/small.py").two_stage)
model.denoising.num_queries = 20
model.encoder.object_tokens = 30

train.output_dir = "output/focus_detr_shapes"
