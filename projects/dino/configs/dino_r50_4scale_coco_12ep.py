"""DINO, ResNet-50, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_r50_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2203.03605): 49.0 box AP on val2017; this config builds 47.65 M parameters.
"""

from detrex.config import get_config

from .models.dino_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

train.max_iter.epochs = 12
scheduler.milestones.epochs = [11]

train.output_dir = "output/dino_r50_4scale_coco_12ep"
