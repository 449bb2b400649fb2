"""Mask DINO, ResNet-50, COCO instance segmentation, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_r50_coco_instance_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
No checkpoint was published for it; this config builds 52.06 M parameters.
"""

from detrex.config import get_config

from .maskdino_r50_coco_instance_50ep import dataloader, model, optimizer, train

scheduler = get_config("common/schedule.py").coco_12_epochs

train.output_dir = "output/maskdino_r50_coco_instance_12ep"
train.max_iter = 88500
