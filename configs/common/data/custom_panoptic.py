"""Your own panoptic data in COCO format; classes and their number come from the training annotations.

Expected under `dataloader.root`: `train/`, `val/`, `annotations/panoptic_{train,val}.json` and the PNGs in
`annotations/panoptic_{train,val}/`. For another layout set
`dataloader.{train,test}.dataset.{images,annotations,segments}`. Boxes and masks of the things are
evaluated too if `dataloader.evaluators.coco` is given, as in `coco_panoptic.py`: it needs a COCO instance
file.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import EvalMapper, dataset_root

dataloader = get_config("common/data/coco_panoptic.py").dataloader
dataloader.root = dataset_root("custom")
dataloader.categories = "${dataloader.train.dataset.annotations}"
for loader, split in ((dataloader.train, "train"), (dataloader.test, "val")):
    loader.dataset.images = "${dataloader.root}/" + split
    loader.dataset.annotations = "${dataloader.root}/annotations/panoptic_" + split + ".json"
    loader.dataset.segments = "${dataloader.root}/annotations/panoptic_" + split
del dataloader.evaluators.coco
dataloader.train.mapper.image_size = 640
dataloader.train.mapper.min_scale = 0.5
# Images are evaluated at the scale that training is centred on: the longer side is image_size.
dataloader.test.mapper = L(EvalMapper)(
    size="${dataloader.train.mapper.image_size}", max_size="${dataloader.train.mapper.image_size}"
)
