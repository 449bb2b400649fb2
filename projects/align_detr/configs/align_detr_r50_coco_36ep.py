"""Align-DETR, ResNet-50, four levels, COCO detection, 36 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/align_detr/configs/align_detr_r50_coco_36ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The zoo has this run without a result.
This config builds 47.65 M parameters.
"""

from .align_detr_r50_coco_24ep import dataloader, model, optimizer, scheduler, train

train.max_iter.epochs = 36
scheduler.milestones.epochs = [30]

train.output_dir = "output/align_detr_r50_coco_36ep"
