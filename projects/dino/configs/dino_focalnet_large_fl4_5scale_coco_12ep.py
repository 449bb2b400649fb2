"""DINO, FocalNet-L of four focal levels, five levels (5scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_focalnet_large_fl4_5scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-22k. Its drop path is not certain.
Published result (table of the detrex zoo, from memory): 58.5 box AP on val2017; this config builds 228.88 M
parameters.
"""

from .dino_focalnet_large_fl4_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.strides = [4, 8, 16, 32]
model.encoder.strides = [4, 8, 16, 32, 64]
model.decoder.layers.num_levels = 5
model.decoder.query_init.anchor_sizes = [0.05, 0.1, 0.2, 0.4, 0.8]

train.output_dir = "output/dino_focalnet_large_fl4_5scale_coco_12ep"
