"""DAB-DETR with three patterns, ResNet-50 with a dilated last stage (DC5), COCO detection, 50 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dab_detr/configs/dab_detr_r50_dc5_3patterns_coco_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
Published result (arXiv 2201.12329): 45.7 box AP on val2017; this config builds 43.67 M parameters.
"""

from .dab_detr_r50_dc5_coco_50ep import dataloader, model, optimizer, scheduler, train

model.decoder.query_init.num_patterns = 3  # every box is taken with each of three learned contents

train.output_dir = "output/dab_detr_r50_dc5_3patterns_coco_50ep"
