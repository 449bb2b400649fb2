"""COCO 2017 detection, boxes only, with DETR's augmentation: many sizes, random crops.

Files as for `coco_instance.py`.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import DetrMapper

dataloader = get_config("common/data/coco_instance.py").dataloader
dataloader.train.dataset.masks = False
dataloader.train.mapper = L(DetrMapper)(
    sizes=[480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
    max_size=1333,
    crop_probability=0.5,
    crop_base_sizes=[400, 500, 600],
    crop_range=[384, 600],
    flip_probability=0.5,
    color_jitter=None,
)
dataloader.train.aspect_ratio_grouping = True
dataloader.evaluators.coco.tasks = ["bbox"]
