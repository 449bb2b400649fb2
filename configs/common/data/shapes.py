"""The embedded data set of shapes, drawn at first use under `dataloader.root`; all tasks are evaluated."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import EvalMapper, ensure_shapes


def shapes(file):
    return L(ensure_shapes)(
        root="${dataloader.root}",
        splits="${dataloader.splits}",
        image_size="${dataloader.image_size}",
        seed="${dataloader.seed}",
        file=file,
    )


dataloader = get_config("common/data/coco_panoptic.py").dataloader
dataloader.root = "datasets/shapes"
dataloader.categories = "${dataloader.train.dataset.annotations}"
dataloader.splits = dict(train=2000, val=100)
dataloader.image_size = 128
dataloader.seed = 0
for loader, split in ((dataloader.train, "train"), (dataloader.test, "val")):
    loader.dataset.images = shapes(split)
    loader.dataset.annotations = shapes(f"annotations/panoptic_{split}.json")
    loader.dataset.segments = shapes(f"panoptic_{split}")
    loader.num_workers = 2
dataloader.evaluators.coco.annotations = shapes("annotations/instances_val.json")
dataloader.train.mapper.image_size = "${dataloader.image_size}"
dataloader.train.mapper.min_scale = 0.7
dataloader.train.mapper.max_scale = 1.4
dataloader.test.mapper = L(EvalMapper)(size="${dataloader.image_size}", max_size="${dataloader.image_size}")
dataloader.test.batch_size = 10
