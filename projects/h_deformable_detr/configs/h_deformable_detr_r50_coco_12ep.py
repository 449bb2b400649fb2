"""H-Deformable-DETR, ResNet-50, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/h_deformable_detr/configs/h_deformable_detr_r50_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true` lets timm download the ImageNet weights of the backbone; without it or
`train.init_checkpoint`, training starts from nothing, under frozen norms, and fails.
Published result (detrex zoo): 48.9 box AP on val2017; this config builds 47.93 M parameters.
"""

from detrex.config import get_config

from .models.h_deformable_detr_r50 import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

optimizer.lr = 2e-4
optimizer.lr_factors["*.sampling_offsets.*"] = 0.1
train.max_iter.epochs = 12
scheduler.milestones.epochs = [11]

train.output_dir = "output/h_deformable_detr_r50_coco_12ep"
