"""Cityscapes instance segmentation: eight classes, evaluated by the benchmark's rules.

Expected under `dataloader.root`: `leftImg8bit/{train,val}/` and `gtFine/{train,val}/` as Cityscapes is
distributed, and the files that `python tools/prepare_dataset.py cityscapes-instance ROOT` writes:
`annotations/instance_{train,val}.json`.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import EvalMapper, category_file, dataset_root
from detrex.evaluation import CityscapesInstanceEvaluator

dataloader = get_config("common/data/coco_instance.py").dataloader
dataloader.root = dataset_root("cityscapes")
dataloader.categories = L(category_file)(name="cityscapes_instance")
for loader, split in ((dataloader.train, "train"), (dataloader.test, "val")):
    loader.dataset.images = "${dataloader.root}/leftImg8bit/" + split
    loader.dataset.annotations = "${dataloader.root}/annotations/instance_" + split + ".json"
dataloader.train.mapper.image_size = 1024
dataloader.test.mapper = L(EvalMapper)(size=1024, max_size=2048)
dataloader.evaluators.cityscapes = L(CityscapesInstanceEvaluator)(segments="${dataloader.root}/gtFine/val")
