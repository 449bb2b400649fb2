"""Mask DINO, ResNet-50, COCO instance segmentation, started from a DINO detector: 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_r50_coco_instance_from_dino.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=/path/to/dino_r50_4scale_12ep.pth

The checkpoint is one of the detrex zoo's, with a ResNet-50, four levels and selected queries. Backbone,
encoder, query selection, six of nine decoder layers and the class and box heads come from it; the log says
what does not (see `docs/checkpoints.md`). The first boxes are DINO's, from the box head and its anchors, as
the masks are untrained. Without published result, and not trained by us; this config builds 52.06 M
parameters.
"""

from .maskdino_r50_coco_instance_12ep import dataloader, model, optimizer, scheduler, train

model.decoder.query_init.box_init = None
model.decoder.query_init.anchor_sizes = [0.05, 0.1, 0.2, 0.4]  # finest level first, as DINO was trained

train.output_dir = "output/maskdino_r50_coco_instance_from_dino"
