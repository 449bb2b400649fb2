"""Deformable DETR with box refinement, ResNet-50, COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/deformable_detr/configs/deformable_detr_r50_refine_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2010.04159): 45.4 box AP on val2017, and 46.2 with the authors' later code; this
config builds 40.83 M parameters.
"""

from .deformable_detr_r50_coco_50ep import dataloader, optimizer, scheduler, train
from .models.deformable_detr_r50_refine import model

train.output_dir = "output/deformable_detr_r50_refine_coco_50ep"
