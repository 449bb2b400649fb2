"""Mask DINO, Swin-L, COCO panoptic segmentation, 50 epochs; instances and semantics come with it.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_swin_large_coco_panoptic_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
Published result (arXiv 2206.02777): 58.3 PQ, 56.2 box AP, 50.6 mask AP on val2017, 223 M parameters, 1326
GFLOPs; this config builds 222.83 M parameters.
Checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/maskdino-v0.1.0/maskdino_swinl_50ep_300q_hid2048_3sd1_panoptic_58.3pq.pth
"""

from .maskdino_r50_coco_panoptic_50ep import dataloader, optimizer, scheduler, train
from .maskdino_r50_coco_panoptic_50ep import model as _r50
from .models.maskdino_swin_large import model

model.num_classes = _r50.num_classes
model.decoder.query_init.box_init = _r50.decoder.query_init.box_init
model.postprocess = _r50.postprocess

train.output_dir = "output/maskdino_swin_large_coco_panoptic_50ep"
