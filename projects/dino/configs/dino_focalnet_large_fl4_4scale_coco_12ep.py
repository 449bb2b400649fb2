"""DINO, FocalNet-L of four focal levels, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_focalnet_large_fl4_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-22k. Its drop path is not certain.
Published result (table of the detrex zoo, from memory): 58.0 box AP on val2017; this config builds 228.53 M
parameters.
"""

from .dino_focalnet_large_fl3_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "focalnet_large_fl4.ms_in22k"

train.output_dir = "output/dino_focalnet_large_fl4_4scale_coco_12ep"
