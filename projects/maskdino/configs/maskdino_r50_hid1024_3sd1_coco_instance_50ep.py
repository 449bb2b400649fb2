"""Mask DINO, ResNet-50, four levels, narrower encoder; COCO instance segmentation, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_r50_hid1024_3sd1_coco_instance_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
Four levels, three of the backbone and one downsampled ("3sd1"), as the name of the published checkpoint says,
and 1024 hidden units in the encoder's feed-forward networks. Whether its first boxes end at the last pixel's
index, as here, or at its far edge, as in the config that the table links, is not known.
Published result (arXiv 2206.02777): 51.5 box AP, 46.1 mask AP on val2017, 47 M parameters, 226 GFLOPs; this
config builds 48.91 M parameters. The published table links another config, with three levels:
`maskdino_r50_hid1024_3s_coco_instance_50ep.py`.
Checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/maskdino-v0.1.0/maskdino_r50_50ep_300q_hid1024_3sd1_instance_maskenhanced_mask46.1ap_box51.5ap.pth
"""

from .maskdino_r50_coco_instance_50ep import dataloader, model, optimizer, scheduler, train

model.encoder.ffn_dim = 1024

train.output_dir = "output/maskdino_r50_hid1024_3sd1_coco_instance_50ep"
