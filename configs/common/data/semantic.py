"""Semantic segmentation: a folder of images and one of PNGs whose pixels are category ids, paired by name.

Expected under `dataloader.root`: `images/{train,val}/`, `annotations/{train,val}/` and `classes.json`, which
lists the classes (see `detrex.data.read_categories`). Classes and their number come from it.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import EvalMapper, PhotometricDistortion, SemanticFolder, dataset_root
from detrex.evaluation import SemanticEvaluator

dataloader = get_config("common/data/coco_instance.py").dataloader
dataloader.root = dataset_root("semantic")
dataloader.categories = "${dataloader.train.dataset.classes}"
dataloader.train.dataset = L(SemanticFolder)(
    images="${dataloader.root}/images/train",
    segments="${dataloader.root}/annotations/train",
    classes="${dataloader.root}/classes.json",
    ignore_label=255,
    image_suffix="",
    segment_suffix=".png",
    orientation="auto",  # for this and the next see `coco_instance.py`
    value_range=None,
)
dataloader.test.dataset = L(SemanticFolder)(
    images="${dataloader.root}/images/val",
    segments="${dataloader.root}/annotations/val",
    classes="${dataloader.train.dataset.classes}",
    ignore_label="${dataloader.train.dataset.ignore_label}",
    image_suffix="${dataloader.train.dataset.image_suffix}",
    segment_suffix="${dataloader.train.dataset.segment_suffix}",
    orientation="${dataloader.train.dataset.orientation}",
    value_range="${dataloader.train.dataset.value_range}",
    targets=False,
)
dataloader.train.mapper.image_size = 512
dataloader.train.mapper.min_scale = 0.5
dataloader.train.mapper.color_jitter = L(PhotometricDistortion)(
    brightness=32.0, contrast=[0.5, 1.5], saturation=[0.5, 1.5], hue=36.0
)
dataloader.test.mapper = L(EvalMapper)(size=512, max_size=2048)
dataloader.evaluators = dict(
    semantic=L(SemanticEvaluator)(
        segments="${dataloader.test.dataset.segments}",
        classes="${dataloader.test.dataset.classes}",
        ignore_label="${dataloader.test.dataset.ignore_label}",
        image_suffix="${dataloader.test.dataset.image_suffix}",
        segment_suffix="${dataloader.test.dataset.segment_suffix}",
    ),
)
