"""PnP-DETR, ResNet-50, COCO detection, 300 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/pnp_detr/configs/pnp_detr_r50_coco_300ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Batches of 64 images, 1848 of them an epoch. The zoo has this run without a result.
This config builds 41.66 M parameters.
"""

from detrex.config import get_config

from .models.pnp_detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

dataloader.train.total_batch_size = 64
train.iterations_per_epoch = 1848
train.clip_grad.max_norm = None
train.max_iter.epochs = 300
scheduler.milestones.epochs = [200]

train.output_dir = "output/pnp_detr_r50_coco_300ep"
