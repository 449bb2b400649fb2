"""A small Mask DINO on your own panoptic data in COCO format: things and stuff, all tasks from one model.

    python tools/train_net.py --config-file projects/maskdino/configs/maskdino_custom_panoptic.py \\
        dataloader.root=/path/to/data train.output_dir=output/mine

Expected under `dataloader.root`: `train/`, `val/`, `annotations/panoptic_{train,val}.json` and PNGs of
segment ids in `annotations/panoptic_{train,val}/`; for another layout set
`dataloader.{train,test}.dataset.{images,annotations,segments}`. Classes come from the training file.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import thing_classes
from detrex.modeling import PanopticInference, SemanticInference

from .maskdino_custom_instance import model, optimizer, scheduler, train

dataloader = get_config("common/data/custom_panoptic.py").dataloader

dataloader.train.mapper.image_size = 256
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 1
dataloader.test.num_workers = 1

model.criterion.points.num_points = 512
model.criterion.points.oversample = 2.0
model.postprocess.thing_classes = L(thing_classes)(annotations="${dataloader.train.dataset.annotations}")
model.postprocess.panoptic = L(PanopticInference)(score_threshold=0.25, overlap_threshold=0.8)
model.postprocess.semantic = L(SemanticInference)(resize_masks=True)

train.max_iter = 600
train.output_dir = "output/maskdino_custom_panoptic"
