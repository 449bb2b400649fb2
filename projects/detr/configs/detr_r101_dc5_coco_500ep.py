"""DETR, ResNet-101 with a dilated last stage (DC5), COCO detection, 500 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/detr/configs/detr_r101_dc5_coco_500ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2005.12872): 44.9 box AP on val2017; this config builds 60.46 M parameters.
"""

from .detr_r50_dc5_coco_500ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "resnet101.tv_in1k"

train.output_dir = "output/detr_r101_dc5_coco_500ep"
