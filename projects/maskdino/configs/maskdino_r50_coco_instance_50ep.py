"""Mask DINO, ResNet-50, COCO instance segmentation, 50 epochs; first boxes around the proposals' masks.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_r50_coco_instance_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true` lets timm download the ImageNet weights from which the published model
started; without it or `train.init_checkpoint`, training starts from nothing, under frozen norms, and fails.
Published result (arXiv 2206.02777): 51.7 box AP, 46.3 mask AP on val2017, 52 M parameters, 286 GFLOPs; this
config builds 52.06 M parameters.
Checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/maskdino-v0.1.0/maskdino_r50_50ep_300q_hid2048_3sd1_instance_maskenhanced_mask46.3ap_box51.7ap.pth
"""

from detrex.config import get_config

from .models.maskdino_r50 import model

dataloader = get_config("common/data/coco_instance.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").coco_50_epochs
train = get_config("common/train.py").train

train.output_dir = "output/maskdino_r50_coco_instance_50ep"
train.max_iter = 368750  # 16 images each: 50 epochs of train2017
