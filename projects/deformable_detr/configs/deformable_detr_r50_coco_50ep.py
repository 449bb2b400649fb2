"""Deformable DETR, ResNet-50, COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/deformable_detr/configs/deformable_detr_r50_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Where queries look, and how that moves, is learned with a tenth of the learning rate. The authors trained with
32 images per step and twice the learning rate.
Published result (arXiv 2010.04159): 43.8 box AP on val2017, and 44.5 with the authors' later code; this
config builds 40.07 M parameters.
"""

from detrex.config import get_config

from .models.deformable_detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

optimizer.lr_factors["*.sampling_offsets.*"] = 0.1
optimizer.lr_factors["decoder.query_init.point"] = 0.1

train.output_dir = "output/deformable_detr_r50_coco_50ep"
