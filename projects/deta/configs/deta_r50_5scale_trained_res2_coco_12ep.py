"""DETA, ResNet-50 of which only the stem is frozen, five levels, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/deta/configs/deta_r50_5scale_trained_res2_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (detrex zoo): 50.2 box AP on val2017; this config builds 48.42 M parameters.
"""

from .deta_r50_5scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.frozen_stages = 1

train.output_dir = "output/deta_r50_5scale_trained_res2_coco_12ep"
