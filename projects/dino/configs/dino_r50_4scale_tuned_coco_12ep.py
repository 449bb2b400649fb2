"""DINO, ResNet-50, four levels (4scale), better hyper-parameters, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_r50_4scale_tuned_coco_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The zoo publishes a row of this name. That it spends 300 denoising queries and weighs the class loss with 2 is
our reading of it, and not certain.
Published result (detrex zoo): 50.0 box AP on val2017; this config builds 47.65 M parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.denoising.num_queries = 300
model.criterion.class_weight = 2.0

train.output_dir = "output/dino_r50_4scale_tuned_coco_12ep"
