"""Conditional DETR, ResNet-50, COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/conditional_detr/configs/conditional_detr_r50_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2108.06152): 40.9 box AP on val2017; this config builds 43.42 M parameters.
"""

from detrex.config import get_config

from .models.conditional_detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

train.output_dir = "output/conditional_detr_r50_coco_50ep"
