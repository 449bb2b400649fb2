"""DINO, ConvNeXt-T, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_convnext_tiny_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-1k. Its drop path is not certain.
Published result (detrex zoo): 51.4 box AP on val2017; this config builds 48.49 M parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_convnext_tiny import model

train.output_dir = "output/dino_convnext_tiny_4scale_coco_12ep"
