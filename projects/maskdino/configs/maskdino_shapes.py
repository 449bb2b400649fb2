"""A small Mask DINO on the embedded data set of shapes, for all four tasks: what `make demo` runs.

    python tools/train_net.py --config-file projects/maskdino/configs/maskdino_shapes.py

The data set is drawn at first use; nothing is downloaded.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import count_classes, thing_classes
from detrex.modeling import PanopticInference, SemanticInference

from .models.maskdino_small import model

dataloader = get_config("common/data/shapes.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").poly
train = get_config("common/train.py").train

dataloader.root = "datasets/shapes"
dataloader.image_size = 96
dataloader.train.total_batch_size = 4  # within a few minutes, many small steps teach more than few large ones
dataloader.train.mapper.min_scale = dataloader.train.mapper.max_scale = 1.0  # flips are enough variety
dataloader.train.num_workers = 1

model.num_classes = L(count_classes)(annotations="${dataloader.train.dataset.annotations}")
model.postprocess.thing_classes = L(thing_classes)(annotations="${dataloader.train.dataset.annotations}")
model.postprocess.panoptic = L(PanopticInference)(score_threshold=0.25, overlap_threshold=0.8)
model.postprocess.semantic = L(SemanticInference)(resize_masks=True)

optimizer.lr = 2e-3
optimizer.weight_decay = 0.02
optimizer.lr_factors = {}
scheduler.warmup_iters = 60
train.clip_grad.max_norm = 0.1

train.output_dir = "output/maskdino_shapes"
train.max_iter = 2000
train.log_period = 50
train.pictures.count = 4
train.eval_period = 0
train.checkpoint.period = 1000
