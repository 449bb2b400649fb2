"""H-Deformable-DETR, ResNet-50, COCO boxes, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/h_deformable_detr/configs/h_deformable_detr_r50_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true
"""

from detrex.config import get_config

from .models.h_deformable_detr_r50 import model

dataloader = get_config("common/data/coco_detection.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").coco_12_epochs
train = get_config("common/train.py").train

optimizer.lr = 2e-4
optimizer.weight_decay = optimizer.norm_weight_decay = optimizer.embedding_weight_decay = 1e-4
optimizer.lr_factors = {"backbone": 0.1, "*.sampling_offsets.*": 0.1}
train.clip_grad.max_norm = 0.1

train.output_dir = "output/h_deformable_detr_r50_coco_12ep"
train.max_iter = 88500
