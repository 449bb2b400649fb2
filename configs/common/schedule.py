"""Learning-rate schedules; lengths in iterations, or in epochs where it says so.

Assign one as `scheduler` in a config. The `coco_*` ones are for COCO train2017 with 16 images per batch
(7,375 iterations per epoch) and want the `train.max_iter` that is noted beside them. The published schedules
of Mask DINO have no warm-up: a `warmup_factor` of 1 means none, whatever `warmup_iters` is.
"""

from detrex.config import LazyCall as L
from detrex.engine import epochs, schedule

# train.max_iter=368750; the published 50-epoch schedule of Mask DINO
coco_50_epochs = L(schedule.multi_step)(
    milestones=[327778, 355092], gamma=0.1, warmup_iters=10, warmup_factor=1.0
)

# train.max_iter=88500; 12 epochs, the last one at a tenth of the learning rate
coco_12_epochs = L(schedule.multi_step)(milestones=[81125], gamma=0.1, warmup_iters=10, warmup_factor=1.0)

# train.max_iter=160000 and 90000; the published schedules of Mask DINO's semantic models
ade20k_160k = L(schedule.multi_step)(
    milestones=[135000, 150000], gamma=0.1, warmup_iters=10, warmup_factor=1.0
)
cityscapes_90k = L(schedule.multi_step)(
    milestones=[80000, 87000], gamma=0.1, warmup_iters=10, warmup_factor=1.0
)

# For a run of any length: these follow train.max_iter.
cosine = L(schedule.cosine)(
    max_iter="${train.max_iter}", final_factor=0.0, warmup_iters=100, warmup_factor=0.001
)
poly = L(schedule.poly)(
    max_iter="${train.max_iter}", power=0.9, final_factor=0.0, warmup_iters=100, warmup_factor=0.001
)
constant = L(schedule.constant)(warmup_iters=100, warmup_factor=0.001)

# For train.max_iter = epochs(12), or `scheduler.milestones.epochs=[40,47]` with another length
twelve_epochs = L(schedule.multi_step)(
    milestones=epochs([8, 11]), gamma=0.1, warmup_iters=epochs(0.1), warmup_factor=0.001
)

# For train.max_iter = epochs(50), as published for the DETR family; the detrex zoo counts 7,500 iterations as
# an epoch of COCO (train.iterations_per_epoch=7500)
one_step = L(schedule.multi_step)(milestones=epochs([40]), gamma=0.1, warmup_iters=0, warmup_factor=1.0)
