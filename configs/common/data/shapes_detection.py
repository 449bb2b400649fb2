"""The boxes of the embedded data set of shapes, drawn at first use under `dataloader.root`."""

from detrex.config import get_config

from .shapes import shapes

dataloader = get_config("common/data/custom_instance.py").dataloader
dataloader.root = "datasets/shapes"
dataloader.splits = dict(train=2000, val=100)
dataloader.image_size = 128
dataloader.seed = 0
for loader, split in ((dataloader.train, "train"), (dataloader.test, "val")):
    loader.dataset.images = shapes(split)
    loader.dataset.annotations = shapes(f"annotations/instances_{split}.json")
dataloader.train.dataset.masks = False
dataloader.train.mapper.image_size = "${dataloader.image_size}"
dataloader.test.batch_size = 10
dataloader.evaluators.coco.tasks = ["bbox"]
