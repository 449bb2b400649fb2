"""Focus-DETR, Swin-T (ImageNet-22k), four levels, COCO detection, 36 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/focus_detr/configs/focus_detr_swin_tiny_in22k_coco_36ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-22k.
Published result (detrex zoo): 53.2 box AP on val2017; this config builds 49.88 M parameters.
"""

from .focus_detr_swin_tiny_coco_36ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "swin_tiny_patch4_window7_224.ms_in22k"

train.output_dir = "output/focus_detr_swin_tiny_in22k_coco_36ep"
