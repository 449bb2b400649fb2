"""OpenSeeD, Swin-T, COCO panoptic segmentation by words: the smallest published model.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/openseed/configs/openseed_swin_tiny_coco_panoptic.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

Published result (arXiv 2303.08131; the file named "51.2ap"): 55.4 PQ on val2017; the published run also saw
Objects365, which `openseed_swin_tiny_coco_objects365.py` does. This config builds 116.18 M parameters.
The text encoder starts from nothing, unless `train.init_checkpoint` brings one: the published run began with
a language model that was trained before.
"""

from detrex.config import get_config

from .models.openseed_swin_tiny import model

dataloader = get_config("common/data/coco_panoptic.py").dataloader
dataloader.train.mapper.drop_invisible = False  # as in Mask DINO's published panoptic runs
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").coco_50_epochs
train = get_config("common/train.py").train

optimizer.lr_factors = {"backbone": 0.1, "text": 0.1}
train.max_iter = 368750  # 16 images each: 50 epochs of train2017
train.output_dir = "output/openseed_swin_tiny_coco_panoptic"
