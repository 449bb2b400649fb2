"""Focus-DETR, ResNet-50, four levels, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/focus_detr/configs/focus_detr_r50_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (detrex zoo): 48.8 box AP on val2017; this config builds 49.34 M parameters.
"""

from detrex.config import get_config

from .models.focus_detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

train.max_iter.epochs = 12
scheduler.milestones.epochs = [11]

train.output_dir = "output/focus_detr_r50_coco_12ep"
