"""Mask DINO, Swin-L, COCO instance segmentation, 50 epochs; first boxes around the proposals' masks.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_swin_large_coco_instance_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
Published result (arXiv 2206.02777): 59.0 box AP, 52.3 mask AP on val2017, 223 M parameters, 1326 GFLOPs; this
config builds 222.80 M parameters.
Checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/maskdino-v0.1.0/maskdino_swinl_50ep_300q_hid2048_3sd1_instance_maskenhanced_mask52.3ap_box59.0ap.pth
"""

from .maskdino_r50_coco_instance_50ep import dataloader, optimizer, scheduler, train
from .models.maskdino_swin_large import model

train.output_dir = "output/maskdino_swin_large_coco_instance_50ep"
