"""DETA, ResNet-50, five levels, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/deta/configs/deta_r50_5scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The authors' weights have 50.1.
Published result (detrex zoo): 49.9 box AP on val2017; this config builds 48.42 M parameters.
"""

from detrex.config import get_config

from .models.deta_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

# The zoo's own trainer for this row ends the first learning rate after 10 of 12 epochs, with batches of 16.
optimizer.lr = 2e-4
optimizer.lr_factors["*.sampling_offsets.*"] = 0.1
train.clip_grad.max_norm = None
train.max_iter.epochs = 12
scheduler.milestones.epochs = [10]

train.output_dir = "output/deta_r50_5scale_coco_12ep"
