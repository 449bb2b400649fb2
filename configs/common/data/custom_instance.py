"""Your own instance data in COCO format; classes and their number come from the training annotations.

Expected under `dataloader.root`: `train/`, `val/` and `annotations/instances_{train,val}.json`. For another
layout set `dataloader.{train,test}.dataset.{images,annotations}`.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import EvalMapper, dataset_root

dataloader = get_config("common/data/coco_instance.py").dataloader
dataloader.root = dataset_root("custom")
dataloader.categories = "${dataloader.train.dataset.annotations}"
for loader, split in ((dataloader.train, "train"), (dataloader.test, "val")):
    loader.dataset.images = "${dataloader.root}/" + split
    loader.dataset.annotations = "${dataloader.root}/annotations/instances_" + split + ".json"
dataloader.train.dataset.skip_empty = False
dataloader.train.mapper.image_size = 640
dataloader.train.mapper.min_scale = 0.5
# Images are evaluated at the scale that training is centred on: the longer side is image_size.
dataloader.test.mapper = L(EvalMapper)(
    size="${dataloader.train.mapper.image_size}", max_size="${dataloader.train.mapper.image_size}"
)
