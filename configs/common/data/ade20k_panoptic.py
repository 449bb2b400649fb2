"""ADE20K panoptic segmentation, 100 things and 50 kinds of stuff.

Expected under `dataloader.root`: `images/{training,validation}/` of ADEChallengeData2016, and the files that
`python tools/prepare_dataset.py ade20k-panoptic ROOT` writes: `ade20k_panoptic_{train,val}.json` and folders
of PNGs of these names. Boxes and masks of the things are evaluated too, of `ade20k_instance_val.json`, if
`dataloader.evaluators.coco` is kept: see `ade20k_instance.py`.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import EvalMapper, category_file, dataset_root

dataloader = get_config("common/data/coco_panoptic.py").dataloader
dataloader.root = dataset_root("ADEChallengeData2016")
dataloader.categories = L(category_file)(name="ade20k_panoptic")
for loader, split, short in ((dataloader.train, "training", "train"), (dataloader.test, "validation", "val")):
    loader.dataset.images = "${dataloader.root}/images/" + split
    loader.dataset.annotations = "${dataloader.root}/ade20k_panoptic_" + short + ".json"
    loader.dataset.segments = "${dataloader.root}/ade20k_panoptic_" + short
dataloader.evaluators.coco.annotations = "${dataloader.root}/ade20k_instance_val.json"
dataloader.train.mapper.image_size = 640
dataloader.test.mapper = L(EvalMapper)(size=640, max_size=2560)
