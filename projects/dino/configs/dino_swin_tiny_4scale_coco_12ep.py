"""DINO, Swin-T, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_swin_tiny_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-1k. Its drop path of 0.2 is DINO's; whether the zoo's run had the same is
not certain.
Published result (table of the detrex zoo, from memory): 51.3 box AP on val2017; this config builds 48.19 M
parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_swin_tiny import model

train.output_dir = "output/dino_swin_tiny_4scale_coco_12ep"
