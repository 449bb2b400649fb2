"""SQR-DAB-DETR, ResNet-50, COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/sqr_detr/configs/sqr_dab_detr_r50_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (detrex zoo): 44.4 box AP on val2017; this config builds 43.67 M parameters.
"""

from detrex.config import get_config

from .models.sqr_dab_detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

train.output_dir = "output/sqr_dab_detr_r50_coco_50ep"
