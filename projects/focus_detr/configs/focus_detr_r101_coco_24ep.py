"""Focus-DETR, ResNet-101, four levels, COCO detection, 24 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/focus_detr/configs/focus_detr_r101_coco_24ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (detrex zoo): 51.2 box AP on val2017; this config builds 68.28 M parameters.
"""

from .focus_detr_r50_coco_24ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "resnet101.tv_in1k"

train.output_dir = "output/focus_detr_r101_coco_24ep"
