"""A run of minutes on the boxes of the embedded shapes, the same for the DETR family: all but the model."""

from detrex.config import get_config

dataloader = get_config("common/data/shapes_detection.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").poly
train = get_config("common/train.py").train

dataloader.image_size = 96
dataloader.train.total_batch_size = 4  # within a few minutes, many small steps teach more than few large ones
dataloader.train.mapper.min_scale = dataloader.train.mapper.max_scale = 1.0  # flips are enough variety
dataloader.train.num_workers = 1
dataloader.test.num_workers = 1

optimizer.lr = 1e-3
optimizer.weight_decay = 0.02
optimizer.lr_factors = {}
scheduler.warmup_iters = 60
train.clip_grad.max_norm = 0.1

train.max_iter = 1500
train.log_period = 50
train.pictures.count = 4
train.eval_period = 0
train.checkpoint.period = 500
