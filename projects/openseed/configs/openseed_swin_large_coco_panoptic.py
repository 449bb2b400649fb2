"""OpenSeeD, Swin-L, COCO panoptic segmentation by words, with queries for stuff.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/openseed/configs/openseed_swin_large_coco_panoptic.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

Weights of such a model, trained with Objects365 before, were released; a result is not among the facts that
this project has. This config builds 286.44 M parameters.
"""

from .models.openseed_swin_large import model
from .openseed_swin_tiny_coco_panoptic import dataloader, optimizer, scheduler, train

train.output_dir = "output/openseed_swin_large_coco_panoptic"
