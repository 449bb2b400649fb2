"""DINO, EVA-02-L, images of 1024 pixels, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino_eva/configs/dino_eva_02_large_1024_coco_12ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` has the weights of EVA-02-L after pretraining, with patches of 16 pixels.
Published result (detrex zoo): 58.9 box AP on val2017; this config builds 326.74 M parameters.
"""

from .dino_eva_02_base_1024_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_eva_02_large import model

optimizer.layer_decay = {"backbone": 0.8}

train.output_dir = "output/dino_eva_02_large_1024_coco_12ep"
