"""H-Deformable-DETR, Swin-L, COCO detection, 36 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/h_deformable_detr/configs/h_deformable_detr_swin_large_coco_36ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-22k. Its drop path is H-DETR's.
Published result (detrex zoo): 57.5 box AP on val2017; this config builds 218.06 M parameters.
"""

from .h_deformable_detr_swin_large_coco_12ep import dataloader, model, optimizer, scheduler, train

train.max_iter.epochs = 36
scheduler.milestones.epochs = [30]

train.output_dir = "output/h_deformable_detr_swin_large_coco_36ep"
