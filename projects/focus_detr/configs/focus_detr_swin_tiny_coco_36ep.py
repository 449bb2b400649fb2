"""Focus-DETR, Swin-T, four levels, COCO detection, 36 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/focus_detr/configs/focus_detr_swin_tiny_coco_36ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-1k. The backbone's drop path of 0.2 is DINO's; whether the zoo's runs had
the same is not certain.
Published result (detrex zoo): 52.5 box AP on val2017; this config builds 49.88 M parameters.
"""

from .focus_detr_r50_coco_36ep import dataloader, optimizer, scheduler, train
from .models.focus_detr_swin_tiny import model

train.output_dir = "output/focus_detr_swin_tiny_coco_36ep"
