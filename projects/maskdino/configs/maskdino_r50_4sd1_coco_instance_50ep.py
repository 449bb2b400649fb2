"""Mask DINO, ResNet-50, five levels from stride 4 on; COCO instance segmentation, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_r50_4sd1_coco_instance_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
`maskdino_r50_coco_instance_50ep.py` with all four scales of the backbone and one downsampled ("4sd1"):
strides 4, 8, 16, 32 and 64. The finest level has three quarters of all tokens, so it takes several times the
memory.
No result was published for it; this config builds 52.49 M parameters.
"""

from .maskdino_r50_coco_instance_50ep import dataloader, optimizer, scheduler, train
from .models.maskdino_r50_five_levels import model

train.output_dir = "output/maskdino_r50_4sd1_coco_instance_50ep"
