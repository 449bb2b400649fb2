"""DAB-DETR, ResNet-101, COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dab_detr/configs/dab_detr_r101_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2201.12329): 43.5 box AP on val2017; this config builds 62.61 M parameters.
"""

from .dab_detr_r50_coco_50ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "resnet101.tv_in1k"

train.output_dir = "output/dab_detr_r101_coco_50ep"
