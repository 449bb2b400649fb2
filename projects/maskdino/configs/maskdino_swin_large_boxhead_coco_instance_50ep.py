"""Mask DINO, Swin-L, COCO instance segmentation, 50 epochs; first boxes from the box head.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_swin_large_boxhead_coco_instance_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
`maskdino_swin_large_coco_instance_50ep.py` without mask-enhanced boxes.
Published result (arXiv 2206.02777): 58.3 box AP, 52.1 mask AP on val2017, 223 M parameters, 1326 GFLOPs; this
config builds 222.80 M parameters.
Checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/maskdino-v0.1.0/maskdino_swinl_50ep_300q_hid2048_3sd1_instance_mask52.1ap_box58.3ap.pth
"""

from .maskdino_swin_large_coco_instance_50ep import dataloader, model, optimizer, scheduler, train

model.decoder.query_init.box_init = None

train.output_dir = "output/maskdino_swin_large_boxhead_coco_instance_50ep"
