"""Align-DETR, ResNet-50, four levels, COCO detection, 24 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/align_detr/configs/align_detr_r50_coco_24ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (detrex zoo): 51.4 box AP on val2017; this config builds 47.65 M
parameters.
"""

from detrex.config import get_config

from .models.align_detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

train.max_iter.epochs = 24
scheduler.milestones.epochs = [20]

train.output_dir = "output/align_detr_r50_coco_24ep"
