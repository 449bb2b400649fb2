"""Mask DINO, ResNet-50, three levels, narrower encoder; COCO instance segmentation, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_r50_hid1024_3s_coco_instance_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
The config that the published table links for its first row: levels of strides 8, 16 and 32, and 1024 hidden
units in the encoder's feed-forward networks. It takes its levels coarsest first, which makes the anchors of
the finest level the smallest ones, and draws first boxes to the far edge of masks. The row itself says 51.5
box AP, 46.1 mask AP on val2017, 47 M parameters and 226 GFLOPs (arXiv 2206.02777), but this config builds
43.82 M parameters. The name of the row's checkpoint ("3sd1") says four levels: that is
`maskdino_r50_hid1024_3sd1_coco_instance_50ep.py`. Levels show in the checkpoint itself: its `level_embed` has
one row for each.
"""

from .maskdino_r50_coco_instance_50ep import dataloader, model, optimizer, scheduler, train

model.encoder.strides = [8, 16, 32]
model.encoder.ffn_dim = 1024
model.decoder.layers.num_levels = 3
model.decoder.query_init.anchor_sizes = [0.05, 0.1, 0.2]
model.decoder.query_init.box_init.past_last_pixel = True

train.output_dir = "output/maskdino_r50_hid1024_3s_coco_instance_50ep"
