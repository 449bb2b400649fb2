"""DETA, ResNet-50, five levels, batches of 8 images, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/deta/configs/deta_r50_5scale_8images_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (detrex zoo): 50.0 box AP on val2017; this config builds 48.42 M parameters.
"""

from .deta_r50_5scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.frozen_stages = 1
dataloader.train.total_batch_size = 8
optimizer.lr = 1e-4
train.clip_grad.max_norm = 0.1
optimizer.lr_factors = {"backbone": 0.1}
train.max_iter = 180000
scheduler.milestones = [150000]

train.output_dir = "output/deta_r50_5scale_8images_coco_12ep"
