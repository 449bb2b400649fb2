"""DETR, ResNet-50 with a dilated last stage (DC5), COCO detection, 500 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/detr/configs/detr_r50_dc5_coco_500ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2005.12872): 43.3 box AP on val2017; this config builds 41.52 M parameters.
"""

from .detr_r50_coco_500ep import dataloader, model, optimizer, scheduler, train

model.backbone.strides = [16]
model.backbone.options = dict(output_stride=16)  # the last stage is dilated and keeps the size of its map

train.output_dir = "output/detr_r50_dc5_coco_500ep"
