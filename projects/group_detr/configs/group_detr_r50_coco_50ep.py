"""Group DETR on Conditional DETR, ResNet-50, COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/group_detr/configs/group_detr_r50_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The result of this row is not known for certain here.
This config builds 44.18 M parameters.
"""

from .group_detr_r50_coco_12ep import dataloader, model, optimizer, scheduler, train

train.max_iter.epochs = 50
scheduler.milestones.epochs = [40]

train.output_dir = "output/group_detr_r50_coco_50ep"
