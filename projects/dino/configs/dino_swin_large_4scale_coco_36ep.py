"""DINO, Swin-L, four levels (4scale), COCO detection, 36 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_swin_large_4scale_coco_36ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2203.03605): 58.0 box AP on val2017; this config builds 217.99 M parameters.
"""

from .dino_r50_4scale_coco_36ep import dataloader, optimizer, scheduler, train
from .dino_swin_large_4scale_coco_12ep import model

train.output_dir = "output/dino_swin_large_4scale_coco_36ep"
