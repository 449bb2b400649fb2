"""SA-1B: masks of all that is in an image, without classes; evaluation by one click in each mask of COCO.

Expected under `dataloader.root`: images `sa_*.jpg`, each with a file `sa_*.json` beside it, as distributed,
in subfolders or not; under `dataloader.coco_root`: `val2017/` and `annotations/instances_val2017.json`.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import OneClickMapper, SegmentAnythingFolder, category_file, dataset_root
from detrex.evaluation import OneClickEvaluator

dataloader = get_config("common/data/coco_instance.py").dataloader
dataloader.coco_root = dataloader.root
dataloader.root = dataset_root("sa1b")
dataloader.categories = L(category_file)(name="object")
dataloader.train.dataset = L(SegmentAnythingFolder)(images="${dataloader.root}")
dataloader.train.mapper.min_scale = 0.99
dataloader.train.mapper.max_scale = 1.01
dataloader.test.dataset.images = "${dataloader.coco_root}/val2017"
dataloader.test.dataset.annotations = "${dataloader.coco_root}/annotations/instances_val2017.json"
dataloader.test.dataset.file_names = "as_listed"
dataloader.test.dataset.leave_folder = False
dataloader.test.dataset.orientation = "auto"
dataloader.test.dataset.value_range = None
dataloader.test.dataset.targets = True
dataloader.test.mapper = L(OneClickMapper)(size=800, max_size=1333)
dataloader.evaluators = dict(one_click=L(OneClickEvaluator)())
