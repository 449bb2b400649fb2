"""Cityscapes panoptic segmentation: eight things, eleven kinds of stuff.

Expected under `dataloader.root`: `leftImg8bit/{train,val}/` and `gtFine/{train,val}/` as Cityscapes is
distributed, and the files that `python tools/prepare_dataset.py cityscapes-panoptic ROOT` writes:
`annotations/panoptic_{train,val}.json` and PNGs in folders of these names. Instances are evaluated by the
benchmark's rules, and semantic segmentation of the same segments.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import EvalMapper, category_file, dataset_root
from detrex.evaluation import CityscapesInstanceEvaluator

dataloader = get_config("common/data/coco_panoptic.py").dataloader
dataloader.root = dataset_root("cityscapes")
dataloader.categories = L(category_file)(name="cityscapes_semantic")
for loader, split in ((dataloader.train, "train"), (dataloader.test, "val")):
    loader.dataset.images = "${dataloader.root}/leftImg8bit/" + split
    loader.dataset.annotations = "${dataloader.root}/annotations/panoptic_" + split + ".json"
    loader.dataset.segments = "${dataloader.root}/annotations/panoptic_" + split
del dataloader.evaluators.coco
dataloader.train.mapper.image_size = 1024
dataloader.test.mapper = L(EvalMapper)(size=1024, max_size=2048)
dataloader.evaluators.cityscapes = L(CityscapesInstanceEvaluator)(
    segments="${dataloader.root}/gtFine/val", classes="${dataloader.categories}"
)
