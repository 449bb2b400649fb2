"""A small DINO on the boxes of your own data in COCO format.

    python tools/train_net.py --config-file projects/dino/configs/dino_custom_detection.py \\
        dataloader.root=/path/to/data train.output_dir=output/mine

Files as for `maskdino_custom_instance.py`, whose settings these are; masks are not needed, and not read.
"""

from detrex.config import get_config

from .models.dino_r50 import model

dataloader = get_config("common/data/custom_instance.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").poly
train = get_config("common/train.py").train

dataloader.train.dataset.masks = False
dataloader.train.mapper.image_size = 256
dataloader.train.mapper.min_scale = 0.8
dataloader.train.total_batch_size = 2
dataloader.train.num_workers = 1
dataloader.test.num_workers = 1
dataloader.evaluators.coco.tasks = ["bbox"]
# Crowded images need more detections than COCO's 100, in post-processing and in evaluation alike.
dataloader.evaluators.coco.max_detections = "${model.postprocess.instance.max_detections}"

model.merge_with(get_config("common/models/small.py").two_stage)
model.decoder.query_init.num_queries = 100
model.denoising.num_queries = 20

optimizer.lr = 1e-3
optimizer.lr_factors = {}
scheduler.warmup_iters = 50
train.clip_grad.max_norm = 0.1

train.output_dir = "output/dino_custom_detection"
train.max_iter = 1500
train.eval_period = 0
train.checkpoint.period = 200
