"""Semantic-SAM, Swin-T, on the masks of any COCO file: clicks and boxes are drawn from them.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/semantic_sam/configs/semantic_sam_swin_tiny_coco.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

Half of the prompts are boxes, which the published training prepares and then leaves out. This config builds
52.59 M parameters.
"""

from detrex.config import get_config

from .semantic_sam_swin_tiny_sa1b import dataloader as _sa1b
from .semantic_sam_swin_tiny_sa1b import model, optimizer, scheduler, train

dataloader = get_config("common/data/coco_instance.py").dataloader
dataloader.categories = _sa1b.categories
dataloader.train.one_class = True
dataloader.test.dataset.targets = True
dataloader.test.mapper = _sa1b.test.mapper
dataloader.evaluators = _sa1b.evaluators

model.points_as_boxes = False
model.drawing.box_share = 0.5

train.output_dir = "output/semantic_sam_swin_tiny_coco"
