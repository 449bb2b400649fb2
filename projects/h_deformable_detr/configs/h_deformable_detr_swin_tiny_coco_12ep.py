"""H-Deformable-DETR, Swin-T, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/h_deformable_detr/configs/h_deformable_detr_swin_tiny_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-1k.
Published result (detrex zoo): 50.6 box AP on val2017; this config builds 48.47 M parameters.
"""

from .h_deformable_detr_r50_coco_12ep import dataloader, optimizer, scheduler, train
from .models.h_deformable_detr_swin_tiny import model

train.output_dir = "output/h_deformable_detr_swin_tiny_coco_12ep"
