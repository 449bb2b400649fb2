"""H-Deformable-DETR, ResNet-50, COCO detection, 36 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/h_deformable_detr/configs/h_deformable_detr_r50_coco_36ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (detrex zoo): 50.3 box AP on val2017; this config builds 47.93 M parameters.
"""

from .h_deformable_detr_r50_coco_12ep import dataloader, model, optimizer, scheduler, train

train.max_iter.epochs = 36
scheduler.milestones.epochs = [30]

train.output_dir = "output/h_deformable_detr_r50_coco_36ep"
