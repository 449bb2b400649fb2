"""Mask DINO, Swin-L, detection on Objects365, from which the paper's largest models start.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_swin_large_objects365_detection.py \\
        dataloader.root=/path/to/objects365 model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
Objects365 has boxes alone, so that this model has no mask head, and its first boxes are those of the box
head. Train then on COCO or ADE20K with `train.init_checkpoint=FILE`: classes of equal names keep their rows,
and the mask head is new. Length and learning rate of the published pre-training are not
known; here it runs 12 epochs of 1.74 million images, 16 at a time. This config builds 222.04 M parameters.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import count_classes

from .maskdino_swin_large_boxhead_coco_instance_50ep import model, optimizer, scheduler, train

dataloader = get_config("common/data/objects365_detection.py").dataloader

model.pixel_head = None
model.decoder.heads.mask_dim = None
model.criterion.points = None
model.criterion.mask_weight = model.criterion.dice_weight = 0.0
model.criterion.matcher.mask_cost = model.criterion.matcher.dice_cost = 0.0
model.num_classes = L(count_classes)(annotations="${dataloader.train.dataset.annotations}")

scheduler.milestones = [1_195_000]
train.max_iter = 1_303_500
train.output_dir = "output/maskdino_swin_large_objects365_detection"
