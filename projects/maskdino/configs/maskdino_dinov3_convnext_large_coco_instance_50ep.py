"""Mask DINO, DINOv3 ConvNeXt-L, COCO instance segmentation: without published result.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_dinov3_convnext_large_coco_instance_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
The backbone starts from DINOv3's weights (arXiv 2508.10104), a ConvNeXt-L distilled from a ViT of 7 billion
parameters. They are under Meta's DINOv3 licence, which is not this project's, and may ask you to accept it
before the download. Levels and schedule (50 epochs) are those of the published Swin-L; nothing has been tuned
for this backbone, and nobody has trained it yet.
No result was published for it; this config builds 223.83 M parameters.
"""

from .maskdino_r50_coco_instance_50ep import dataloader, optimizer, scheduler, train
from .models.maskdino_dinov3_convnext_large import model

train.output_dir = "output/maskdino_dinov3_convnext_large_coco_instance_50ep"
