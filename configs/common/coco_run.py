"""A published run of 50 epochs on COCO's boxes, the same for the DETR family: all but the model.

For another length set `train.max_iter.epochs` and `scheduler.milestones.epochs`.
`model.backbone.pretrained=true` lets timm download the ImageNet weights of the backbone; without it or
`train.init_checkpoint`, training starts from nothing, under frozen norms, and fails.
"""

from detrex.config import get_config
from detrex.engine import epochs

dataloader = get_config("common/data/coco_detection.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").one_step
train = get_config("common/train.py").train

dataloader.train.dataset.skip_empty = False  # these models were trained on images without objects, too

optimizer.weight_decay = 1e-4
optimizer.embedding_weight_decay = "${.weight_decay}"

train.max_iter = epochs(50)
train.clip_grad.max_norm = 0.1
