"""DINO, ViTDet-L, four levels (4scale), COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_vitdet_large_4scale_coco_50ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` has the weights of the backbone after pretraining, such as MAE's of timm (`vit_large_patch16_224.mae`).
Published result (detrex zoo): 57.5 box AP on val2017; this config builds 326.78 M parameters.
"""

from .dino_vitdet_large_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

train.max_iter.epochs = 50
scheduler.milestones.epochs = [40]

train.output_dir = "output/dino_vitdet_large_4scale_coco_50ep"
