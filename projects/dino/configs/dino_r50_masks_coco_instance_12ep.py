"""DINO with Mask DINO's mask head, ResNet-50, COCO instance segmentation, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_r50_masks_coco_instance_12ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `dino_r50_4scale_coco_12ep.py`. To start from a trained DINO instead,
give its file or its name in the model zoo as `train.init_checkpoint`; only the mask head is then new.
Nothing was published for it; this config builds 49.75 M parameters.
"""

from .dino_r50_4scale_coco_12ep import dataloader, optimizer, scheduler, train
from .models.dino_r50_masks import model

dataloader.train.dataset.masks = True
dataloader.evaluators.coco.tasks = ["bbox", "segm"]

train.output_dir = "output/dino_r50_masks_coco_instance_12ep"
