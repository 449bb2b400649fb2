"""Focus-DETR, ResNet-50, four levels, COCO detection, 24 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/focus_detr/configs/focus_detr_r50_coco_24ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The longer runs encode positions with temperature 20 and without offset, and leave out images without objects.
Published result (detrex zoo): 50.3 box AP on val2017; this config builds 49.34 M parameters.
"""

from .focus_detr_r50_coco_12ep import dataloader, model, optimizer, scheduler, train

model.encoder.temperature = 20.0
model.encoder.position_offset = 0.0
dataloader.train.dataset.skip_empty = True
train.max_iter.epochs = 24
scheduler.milestones.epochs = [20]

train.output_dir = "output/focus_detr_r50_coco_24ep"
