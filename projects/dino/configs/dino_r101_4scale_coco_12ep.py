"""DINO, ResNet-101, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_r101_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (table of the detrex zoo, from memory): 50.0 box AP on val2017; this config builds 66.59 M
parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "resnet101.tv_in1k"

train.output_dir = "output/dino_r101_4scale_coco_12ep"
