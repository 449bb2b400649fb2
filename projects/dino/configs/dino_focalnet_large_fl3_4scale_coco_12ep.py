"""DINO, FocalNet-L of three focal levels, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_focalnet_large_fl3_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-22k. Its drop path is not certain.
Published result (table of the detrex zoo, from memory): 57.5 box AP on val2017; this config builds 228.35 M
parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_focalnet_large import model

train.output_dir = "output/dino_focalnet_large_fl3_4scale_coco_12ep"
