"""Objects365 v2 detection, 365 classes, for pre-training; large-scale jitter as for COCO.

Expected under `dataloader.root`: `annotations/zhiyuan_objv2_{train,val}.json` as distributed, and the images
of all patches, unpacked, in `{train,val}/patch*/`. The files list them under other folders, which are not
looked at.
"""

from detrex.config import get_config
from detrex.data import dataset_root

dataloader = get_config("common/data/coco_instance.py").dataloader
dataloader.root = dataset_root("objects365")
dataloader.categories = "${dataloader.train.dataset.annotations}"
for loader, split in ((dataloader.train, "train"), (dataloader.test, "val")):
    loader.dataset.images = "${dataloader.root}/" + split
    loader.dataset.annotations = "${dataloader.root}/annotations/zhiyuan_objv2_" + split + ".json"
dataloader.train.dataset.masks = False
dataloader.train.dataset.file_names = "last_part"
dataloader.evaluators.coco.tasks = ["bbox"]
