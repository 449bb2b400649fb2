"""DINO, Swin-B, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_swin_base_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-22k, with images of 384 x 384 and windows of 12.
Published result (table of the detrex zoo, from memory): 55.8 box AP on val2017; this config builds 108.26 M
parameters.
"""

from .dino_swin_tiny_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "swin_base_patch4_window12_384.ms_in22k"

train.output_dir = "output/dino_swin_base_4scale_coco_12ep"
