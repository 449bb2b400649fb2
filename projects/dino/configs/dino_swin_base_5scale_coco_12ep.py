"""DINO, Swin-B, five levels from stride 4 on (5scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_swin_base_5scale_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
No result was published for it; this config builds 108.59 M parameters.
"""

from .dino_swin_tiny_5scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "swin_base_patch4_window12_384.ms_in22k"

train.output_dir = "output/dino_swin_base_5scale_coco_12ep"
