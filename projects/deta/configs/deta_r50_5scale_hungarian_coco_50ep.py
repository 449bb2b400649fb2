"""DETA's baseline with Hungarian matching, ResNet-50, five levels, COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/deta/configs/deta_r50_5scale_hungarian_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
DETA's queries and levels, without its assignments and suppression. The result is that of the authors'
weights.
Published result (detrex zoo): 49.8 box AP on val2017; this config builds 48.42 M parameters.
"""

from detrex.config import get_config

from .models.deta_r50_hungarian import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

train.output_dir = "output/deta_r50_5scale_hungarian_coco_50ep"
