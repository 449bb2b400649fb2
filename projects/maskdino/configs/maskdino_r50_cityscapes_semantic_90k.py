"""Mask DINO, ResNet-50, Cityscapes semantic segmentation, 90,000 iterations of 16 crops of 512 x 1024.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_r50_cityscapes_semantic_90k.py \\
        dataloader.root=/path/to/cityscapes model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
The model of `maskdino_r50_ade20k_semantic_160k.py`, but for the backbone's batch norms: these are trained,
with statistics over the images of all GPUs. (Several processes on CPUs need
`train.distributed.sync_batch_norm=false`.) The data: see `configs/common/data/cityscapes_semantic.py`.
Published result (arXiv 2206.02777): 79.8 mIoU on the validation images; this config builds 43.80 M
parameters.
Checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/maskdino-v0.1.0/maskdino_r50_50ep_100q_celoss_hid1024_3s_semantic_cityscapes_79.8miou.pth
"""

from detrex.config import get_config

from .maskdino_r50_ade20k_semantic_160k import model, optimizer, train

dataloader = get_config("common/data/cityscapes_semantic.py").dataloader
scheduler = get_config("common/schedule.py").cityscapes_90k

model.num_classes = 19
model.backbone.frozen_norm = False

train.distributed.sync_batch_norm = True
train.output_dir = "output/maskdino_r50_cityscapes_semantic_90k"
train.max_iter = 90000
