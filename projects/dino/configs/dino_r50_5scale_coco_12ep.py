"""DINO, ResNet-50, five levels from stride 4 on (5scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_r50_5scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The finest level has three quarters of all tokens: `model.encoder.checkpointing=true` trades time for memory.
Published result (arXiv 2203.03605): 49.4 box AP on val2017; this config builds 48.01 M parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_r50_5scale import model

train.output_dir = "output/dino_r50_5scale_coco_12ep"
