"""COCO 2017 panoptic segmentation, with the published augmentation of Mask DINO.

Expected under `dataloader.root`, as COCO is distributed: `train2017/`, `val2017/` and, under `annotations/`,
`panoptic_{train,val}2017.json`, the unpacked folders `panoptic_{train,val}2017/` and
`instances_val2017.json`.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import CocoPanoptic, category_file
from detrex.evaluation import PanopticEvaluator, SemanticEvaluator

dataloader = get_config("common/data/coco_instance.py").dataloader
dataloader.categories = L(category_file)(name="coco_panoptic")
dataloader.train.dataset = L(CocoPanoptic)(
    images="${dataloader.root}/train2017",
    annotations="${dataloader.root}/annotations/panoptic_train2017.json",
    segments="${dataloader.root}/annotations/panoptic_train2017",
    file_names="as_listed",  # for this and the following see `coco_instance.py`
    leave_folder=False,
    orientation="auto",
    value_range=None,
)
dataloader.test.dataset = L(CocoPanoptic)(
    images="${dataloader.root}/val2017",
    annotations="${dataloader.root}/annotations/panoptic_val2017.json",
    segments="${dataloader.root}/annotations/panoptic_val2017",
    file_names="${dataloader.train.dataset.file_names}",
    leave_folder="${dataloader.train.dataset.leave_folder}",
    orientation="${dataloader.train.dataset.orientation}",
    value_range="${dataloader.train.dataset.value_range}",
    targets=False,
)
dataloader.evaluators.coco.annotations = "${dataloader.root}/annotations/instances_val2017.json"
dataloader.evaluators.panoptic = L(PanopticEvaluator)(
    annotations="${dataloader.test.dataset.annotations}",
    segments="${dataloader.test.dataset.segments}",
    classes="${dataloader.train.dataset.annotations}",
    images="${dataloader.test.dataset.images}",
    file_names="${dataloader.test.dataset.file_names}",
    orientation="${dataloader.test.dataset.orientation}",
    leave_folder="${dataloader.test.dataset.leave_folder}",
    output_dir=None,  # where to write the predictions in COCO's panoptic format
)
dataloader.evaluators.semantic = L(SemanticEvaluator)(
    annotations="${dataloader.test.dataset.annotations}",
    segments="${dataloader.test.dataset.segments}",
    classes="${dataloader.train.dataset.annotations}",
    images="${dataloader.test.dataset.images}",
    file_names="${dataloader.test.dataset.file_names}",
    orientation="${dataloader.test.dataset.orientation}",
    leave_folder="${dataloader.test.dataset.leave_folder}",
)
