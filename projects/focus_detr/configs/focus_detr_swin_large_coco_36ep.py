"""Focus-DETR, Swin-L, four levels, COCO detection, 36 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/focus_detr/configs/focus_detr_swin_large_coco_36ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-22k, with images of 384 x 384 and windows of 12.
Published result (detrex zoo): 56.3 box AP on val2017; this config builds 219.68 M parameters.
"""

from .focus_detr_swin_tiny_coco_36ep import dataloader, model, optimizer, scheduler, train

model.backbone.name = "swin_large_patch4_window12_384.ms_in22k"

train.output_dir = "output/focus_detr_swin_large_coco_36ep"
