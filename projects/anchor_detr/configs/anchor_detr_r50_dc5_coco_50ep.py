"""Anchor DETR, ResNet-50 with a dilated last stage (DC5), COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/anchor_detr/configs/anchor_detr_r50_dc5_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2109.07107): 44.2 box AP on val2017; this config builds 37.04 M parameters.
"""

from .anchor_detr_r50_coco_50ep import dataloader, model, optimizer, scheduler, train

model.backbone.strides = [16]
model.backbone.options = dict(output_stride=16)  # the last stage is dilated and keeps the size of its map

train.output_dir = "output/anchor_detr_r50_dc5_coco_50ep"
