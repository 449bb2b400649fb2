"""DINO, InternImage-T, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_intern_image_tiny_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` has the weights of the backbone or of the whole detector.
This config builds 48.74 M parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_intern_image_tiny import model

train.output_dir = "output/dino_intern_image_tiny_4scale_coco_12ep"
