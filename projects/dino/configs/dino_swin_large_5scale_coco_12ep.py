"""DINO, Swin-L, five levels from stride 4 on (5scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_swin_large_5scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2203.03605): 57.3 box AP on val2017; this config builds 218.33 M parameters.
"""

from .dino_swin_tiny_5scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "swin_large_patch4_window12_384.ms_in22k"

train.output_dir = "output/dino_swin_large_5scale_coco_12ep"
