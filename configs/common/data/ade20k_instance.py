"""ADE20K instance segmentation, the 100 classes of its instance challenge.

Expected under `dataloader.root`: `images/{training,validation}/` of ADEChallengeData2016, and the files that
`python tools/prepare_dataset.py ade20k-instance ROOT` writes: `ade20k_instance_{train,val}.json`.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import EvalMapper, category_file, dataset_root

dataloader = get_config("common/data/coco_instance.py").dataloader
dataloader.root = dataset_root("ADEChallengeData2016")
dataloader.categories = L(category_file)(name="ade20k_instance")
for loader, split, short in ((dataloader.train, "training", "train"), (dataloader.test, "validation", "val")):
    loader.dataset.images = "${dataloader.root}/images/" + split
    loader.dataset.annotations = "${dataloader.root}/ade20k_instance_" + short + ".json"
dataloader.train.mapper.image_size = 640
dataloader.test.mapper = L(EvalMapper)(size=640, max_size=2560)
