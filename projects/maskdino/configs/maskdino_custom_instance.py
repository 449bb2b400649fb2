"""A small Mask DINO on your own instances in COCO format.

    python tools/train_net.py --config-file projects/maskdino/configs/maskdino_custom_instance.py \\
        dataloader.root=/path/to/data train.output_dir=output/mine

Expected under `dataloader.root`: `train/`, `val/`, `annotations/instances_{train,val}.json`; for another
layout set `dataloader.{train,test}.dataset.{images,annotations}`. Number and names of classes come from the
training file. For a large data set on GPUs, take the published model: `model` of `models/maskdino_r50.py`.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import count_classes

from .models.maskdino_small import model

dataloader = get_config("common/data/custom_instance.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").poly
train = get_config("common/train.py").train

dataloader.train.mapper.image_size = 256
dataloader.train.mapper.min_scale = 0.8
dataloader.train.total_batch_size = 2
dataloader.train.num_workers = 1
dataloader.test.num_workers = 1
# Crowded images need more detections than COCO's 100, in post-processing and in evaluation alike.
dataloader.evaluators.coco.max_detections = "${model.postprocess.instance.max_detections}"

model.num_classes = L(count_classes)(annotations="${dataloader.train.dataset.annotations}")
model.decoder.query_init.num_queries = 100
# Small objects cover few of the points: too few points teach their masks nothing.
model.criterion.points.num_points = 2048
model.criterion.points.oversample = 3.0

optimizer.lr = 1e-3
optimizer.lr_factors = {}
scheduler.warmup_iters = 50
train.clip_grad.max_norm = 0.1

train.output_dir = "output/maskdino_custom_instance"
train.max_iter = 1500
train.eval_period = 0
train.checkpoint.period = 200
