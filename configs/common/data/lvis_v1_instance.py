"""LVIS v1 instance segmentation, 1203 classes, evaluated by its own rules.

Expected: `lvis/lvis_v1_{train,val}.json` beside COCO's images, which are in `coco/{train,val}2017/`;
validation has images of both. `dataloader.root` is the folder of `coco` and `lvis`.
"""

import os

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import dataset_root
from detrex.evaluation import LvisEvaluator

dataloader = get_config("common/data/coco_instance.py").dataloader
dataloader.root = os.path.dirname(dataset_root("lvis"))
dataloader.categories = "${dataloader.train.dataset.annotations}"
for loader, split in ((dataloader.train, "train"), (dataloader.test, "val")):
    loader.dataset.images = "${dataloader.root}/coco"
    loader.dataset.annotations = "${dataloader.root}/lvis/lvis_v1_" + split + ".json"
dataloader.evaluators = dict(
    lvis=L(LvisEvaluator)(
        annotations="${dataloader.test.dataset.annotations}",
        tasks=["bbox", "segm"],
        classes="${dataloader.train.dataset.annotations}",
        max_detections=300,  # of an image, over all classes
        output_dir=None,
        images="${dataloader.test.dataset.images}",
        orientation="${dataloader.test.dataset.orientation}",
        leave_folder="${dataloader.test.dataset.leave_folder}",
    ),
)
