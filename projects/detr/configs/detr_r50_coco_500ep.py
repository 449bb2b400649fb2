"""DETR, ResNet-50, COCO detection, 500 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/detr/configs/detr_r50_coco_500ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The paper trained with 64 images per step; 16, as here, is what its code does by default.
Published result (arXiv 2005.12872): 42.0 box AP on val2017; this config builds 41.52 M parameters.
"""

from detrex.config import get_config

from .models.detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

train.max_iter.epochs = 500
scheduler.milestones.epochs = [400]

train.output_dir = "output/detr_r50_coco_500ep"
