"""Semantic-SAM, Swin-L, SA-1B: masks by clicks and boxes at six granularities.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/semantic_sam/configs/semantic_sam_swin_large_sa1b.py \\
        dataloader.root=/path/to/sa1b model.backbone.pretrained=true \\
        dataloader.coco_root=/path/to/coco

Published result (arXiv 2307.04767): one click on COCO val2017, 55.1 mean IoU of the mask with the highest
expected IoU and 74.1 of the best of six; 89.0 over several granularities, whose evaluation was not released.
The levels of its encoder are not among the facts that this project has; these are the four of Swin-T. This
config builds 222.41 M parameters.
"""

from .semantic_sam_swin_tiny_sa1b import dataloader, model, optimizer, scheduler, train

model.backbone.name = "swin_large_patch4_window12_384.ms_in22k"

train.output_dir = "output/semantic_sam_swin_large_sa1b"
