"""Mask DINO, Swin-L, COCO panoptic segmentation, 50 epochs; first boxes around the proposals' masks.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_swin_large_mask2box_coco_panoptic_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
`maskdino_swin_large_coco_panoptic_50ep.py` with mask-enhanced boxes.
No result was published for it; this config builds 222.83 M parameters.
"""

from detrex.config import LazyCall as L
from detrex.modeling import BoxesFromMasks

from .maskdino_swin_large_coco_panoptic_50ep import dataloader, model, optimizer, scheduler, train

model.decoder.query_init.box_init = L(BoxesFromMasks)()

train.output_dir = "output/maskdino_swin_large_mask2box_coco_panoptic_50ep"
