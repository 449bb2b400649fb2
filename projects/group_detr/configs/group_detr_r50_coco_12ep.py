"""Group DETR on Conditional DETR, ResNet-50, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/group_detr/configs/group_detr_r50_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2207.13085): 37.6 box AP on val2017, 5.0 more than without groups; this config builds
44.18 M parameters.
"""

from detrex.config import get_config

from .models.group_detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

train.max_iter.epochs = 12
scheduler.milestones.epochs = [11]

train.output_dir = "output/group_detr_r50_coco_12ep"
