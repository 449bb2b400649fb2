"""Two-stage Deformable DETR, ResNet-50, COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/deformable_detr/configs/deformable_detr_r50_two_stage_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2010.04159): 46.2 box AP on val2017, and 46.9 with the authors' later code; this
config builds 41.16 M parameters.
"""

from .deformable_detr_r50_coco_50ep import dataloader, optimizer, scheduler, train
from .models.deformable_detr_r50_two_stage import model

del optimizer.lr_factors["decoder.query_init.point"]  # its points are those of the proposals

train.output_dir = "output/deformable_detr_r50_two_stage_coco_50ep"
