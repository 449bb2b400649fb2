"""DN-Deformable-DETR, ResNet-50, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dn_deformable_detr/configs/dn_deformable_detr_r50_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The zoo has this run without a result.
This config builds 47.41 M parameters.
"""

from .dn_deformable_detr_r50_coco_50ep import dataloader, model, optimizer, scheduler, train

train.max_iter.epochs = 12
scheduler.milestones.epochs = [11]

train.output_dir = "output/dn_deformable_detr_r50_coco_12ep"
