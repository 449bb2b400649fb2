"""DAB-Deformable-DETR, ResNet-50, COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dab_deformable_detr/configs/dab_deformable_detr_r50_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (detrex zoo): 49.0 box AP on val2017; this config builds 47.39 M
parameters.
"""

from detrex.config import get_config

from .models.dab_deformable_detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

train.output_dir = "output/dab_deformable_detr_r50_coco_50ep"
