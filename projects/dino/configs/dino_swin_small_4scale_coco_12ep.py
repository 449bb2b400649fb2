"""DINO, Swin-S, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_swin_small_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-1k.
Published result (table of the detrex zoo, from memory): 53.0 box AP on val2017; this config builds 69.51 M
parameters.
"""

from .dino_swin_tiny_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "swin_small_patch4_window7_224.ms_in1k"

train.output_dir = "output/dino_swin_small_4scale_coco_12ep"
