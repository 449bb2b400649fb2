"""DINO, EVA-01, images of 1280 pixels, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino_eva/configs/dino_eva_01_1280_coco_12ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` has the weights of EVA-01 after pretraining, detection on Objects365 included.
Drop path and the fall of learning rates are EVA's own for detection; the zoo's may differ.
Published result (detrex zoo): 62.1 box AP on val2017; this config builds 1037.22 M parameters.
"""

from .dino_eva_02_base_1024_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_eva_01 import model

optimizer.layer_decay = {"backbone": 0.9}

train.output_dir = "output/dino_eva_01_1280_coco_12ep"
