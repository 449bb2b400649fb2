"""DINO, ConvNeXt-S, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_convnext_small_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-1k. Its drop path is not certain.
Published result (detrex zoo): 52.0 box AP on val2017; this config builds 70.13 M parameters.
"""

from .dino_convnext_tiny_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "convnext_small.fb_in1k"
model.backbone.options.drop_path_rate = 0.3

train.output_dir = "output/dino_convnext_small_4scale_coco_12ep"
