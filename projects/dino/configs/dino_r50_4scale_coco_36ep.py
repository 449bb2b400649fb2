"""DINO, ResNet-50, four levels (4scale), COCO detection, 36 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_r50_4scale_coco_36ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2203.03605): 50.9 box AP on val2017; this config builds 47.65 M parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

train.max_iter.epochs = 36
scheduler.milestones.epochs = [30]

train.output_dir = "output/dino_r50_4scale_coco_36ep"
