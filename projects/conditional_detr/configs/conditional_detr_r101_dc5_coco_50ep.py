"""Conditional DETR, ResNet-101 with a dilated last stage (DC5), COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/conditional_detr/configs/conditional_detr_r101_dc5_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2108.06152): 45.0 box AP on val2017; this config builds 62.36 M parameters.
"""

from .conditional_detr_r50_dc5_coco_50ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "resnet101.tv_in1k"

train.output_dir = "output/conditional_detr_r101_dc5_coco_50ep"
