"""COCO 2017 instance segmentation, with the published augmentation of Mask DINO.

Expected under `dataloader.root`, as COCO is distributed (docs/datasets.md): `train2017/`, `val2017/` and
`annotations/instances_{train,val}2017.json`.
"""

from detrex.config import LazyCall as L
from detrex.data import (
    CocoInstances,
    EvalMapper,
    LargeScaleJitterMapper,
    build_test_loader,
    build_train_loader,
    category_file,
    dataset_root,
)
from detrex.evaluation import CocoEvaluator

dataloader = dict(
    root=dataset_root("coco"),
    categories=L(category_file)(name="coco_instance"),  # the model's classes, for use without the data
    train=L(build_train_loader)(
        dataset=L(CocoInstances)(
            images="${dataloader.root}/train2017",
            annotations="${dataloader.root}/annotations/instances_train2017.json",
            masks=True,
            skip_empty=True,
            file_names="as_listed",  # or how names are changed to find the files, such as "slashes"
            leave_folder=False,  # whether names of files may lead out of the folder
            orientation="auto",  # on which picture annotations were drawn: "stored" or "shown", by EXIF
            value_range=None,  # of images of 16 bits a channel, such as [0, 4095]
        ),
        mapper=L(LargeScaleJitterMapper)(
            image_size=1024,
            min_scale=0.1,
            max_scale=2.0,
            flip_probability=0.5,
            pad_value=128,
            color_jitter=None,
            drop_invisible=True,  # objects that a crop cuts away
        ),
        total_batch_size=16,
        num_workers=4,
        seed="${train.seed}",
        aspect_ratio_grouping=False,
    ),
    test=L(build_test_loader)(
        dataset=L(CocoInstances)(
            images="${dataloader.root}/val2017",
            annotations="${dataloader.root}/annotations/instances_val2017.json",
            masks="${dataloader.train.dataset.masks}",
            file_names="${dataloader.train.dataset.file_names}",
            leave_folder="${dataloader.train.dataset.leave_folder}",
            orientation="${dataloader.train.dataset.orientation}",
            value_range="${dataloader.train.dataset.value_range}",
            targets=False,
        ),
        mapper=L(EvalMapper)(size=800, max_size=1333),
        batch_size=1,
        num_workers=4,
    ),
    evaluators=dict(
        coco=L(CocoEvaluator)(
            annotations="${dataloader.test.dataset.annotations}",
            tasks=["bbox", "segm"],
            classes="${dataloader.train.dataset.annotations}",
            max_detections=100,  # per image and class that count
            output_dir=None,  # where to write the detections, with the file's category ids
            images="${dataloader.test.dataset.images}",
            orientation="${dataloader.test.dataset.orientation}",
            leave_folder="${dataloader.test.dataset.leave_folder}",
            backend="pycocotools",  # or faster-coco-eval, which is faster
        ),
    ),
)
