"""Mask DINO, ResNet-50, COCO instance segmentation, 50 epochs; first boxes to the far edge of masks.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_r50_bitmask_coco_instance_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
`maskdino_r50_coco_instance_50ep.py` with the other way of drawing boxes around the proposals' masks: they
include the last pixel whole, instead of ending at its index.
No result was published for it; this config builds 52.06 M parameters.
"""

from detrex.config import LazyCall as L
from detrex.modeling import BoxesFromMasks

from .maskdino_r50_coco_instance_50ep import dataloader, model, optimizer, scheduler, train

model.decoder.query_init.box_init = L(BoxesFromMasks)(past_last_pixel=True)

train.output_dir = "output/maskdino_r50_bitmask_coco_instance_50ep"
