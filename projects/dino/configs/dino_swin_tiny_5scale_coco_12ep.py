"""DINO, Swin-T, five levels from stride 4 on (5scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_swin_tiny_5scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
No result was published for it; this config builds 48.52 M parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_swin_tiny_5scale import model

train.output_dir = "output/dino_swin_tiny_5scale_coco_12ep"
