"""Fine-tuning on your own instances in COCO format: EfficientNet-Lite0 of ImageNet and a small Mask DINO.

    python tools/train_net.py \\
        --config-file projects/maskdino/configs/maskdino_efficientnet_lite0_custom_instance.py \\
        dataloader.root=/path/to/data train.output_dir=output/mine model.backbone.pretrained=true

Files as for `maskdino_custom_instance.py`. `model.backbone.pretrained=true` downloads the weights with timm;
without network give a file of them, `train.init_checkpoint=FILE`. What the settings are for, and what they
reached on two data sets: docs/finetuning.md.
"""

from .maskdino_custom_instance import dataloader, model, optimizer, scheduler, train

model.backbone.name = "tf_efficientnet_lite0"
model.backbone.options = {}
model.backbone.frozen_norm = True  # ImageNet's statistics; those of two images are worse
model.pixel_mean = [127.0, 127.0, 127.0]  # what these weights were trained with
model.pixel_std = [128.0, 128.0, 128.0]

# Some more than the most crowded image has objects. Every query costs time, and most are "nothing found".
model.decoder.query_init.num_queries = 50

dataloader.train.mapper.image_size = 320
dataloader.train.mapper.min_scale = 0.6
dataloader.train.mapper.max_scale = 1.6

# The backbone learns slowly: it knows photos, and the rest is new. 0.0 keeps it as it is.
optimizer.lr = 2e-3
optimizer.lr_factors = {"backbone": 0.1}

train.output_dir = "output/maskdino_efficientnet_lite0_custom_instance"
train.max_iter = 2400  # masks are learned last
