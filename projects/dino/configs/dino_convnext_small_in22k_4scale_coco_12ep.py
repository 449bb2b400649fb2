"""DINO, ConvNeXt-S (ImageNet-22k), four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_convnext_small_in22k_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-22k, tuned with images of 384 x 384.
Published result (detrex zoo): 54.2 box AP on val2017; this config builds 70.13 M parameters.
"""

from .dino_convnext_small_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "convnext_small.fb_in22k_ft_in1k_384"

train.output_dir = "output/dino_convnext_small_in22k_4scale_coco_12ep"
