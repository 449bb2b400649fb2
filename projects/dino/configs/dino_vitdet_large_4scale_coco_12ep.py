"""DINO, ViTDet-L, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_vitdet_large_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` has the weights of the backbone after pretraining, such as MAE's of timm (`vit_large_patch16_224.mae`).
Published result (detrex zoo): 52.9 box AP on val2017; this config builds 326.78 M parameters.
"""

from .dino_vitdet_base_4scale_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_vitdet_large import model

optimizer.layer_decay = {"backbone": 0.8}

train.output_dir = "output/dino_vitdet_large_4scale_coco_12ep"
