"""Anchor DETR, ResNet-50, COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/anchor_detr/configs/anchor_detr_r50_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The weights of the paper's authors have 42.2.
Published result (detrex zoo): 41.9 box AP on val2017; this config builds 37.04 M parameters.
"""

from detrex.config import get_config

from .models.anchor_detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

train.output_dir = "output/anchor_detr_r50_coco_50ep"
