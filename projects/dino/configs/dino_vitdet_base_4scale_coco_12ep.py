"""DINO, ViTDet-B, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_vitdet_base_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` has the weights of the backbone after pretraining, such as MAE's of timm (`vit_base_patch16_224.mae`).
Published result (detrex zoo): 50.2 box AP on val2017; this config builds 108.15 M parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_vitdet_base import model

optimizer.lr_factors = {}
optimizer.layer_decay = {"backbone": 0.7}

train.output_dir = "output/dino_vitdet_base_4scale_coco_12ep"
