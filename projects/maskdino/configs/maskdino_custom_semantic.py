"""A small Mask DINO on your own semantic data: images, and a PNG each whose pixels are classes.

    python tools/train_net.py --config-file projects/maskdino/configs/maskdino_custom_semantic.py \\
        dataloader.root=/path/to/data train.output_dir=output/mine

Expected under `dataloader.root`: `images/{train,val}/`, `annotations/{train,val}/*.png` with the names of the
images, and `classes.json`: `{"classes": ["road", "car"]}`, where a class's place in the list is its pixel
value. Pixels of 255 are not labelled; for other values set `dataloader.train.dataset.ignore_label`. For other
names of folders set `dataloader.{train,test}.dataset.{images,segments}`.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import SemanticInference

from .maskdino_custom_instance import model, optimizer, scheduler, train

dataloader = get_config("common/data/semantic.py").dataloader

dataloader.train.mapper.image_size = 256
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 1
dataloader.test.mapper.size = 256
dataloader.test.num_workers = 1

model.num_classes.annotations = "${dataloader.train.dataset.classes}"
model.criterion.points.num_points = 512
model.criterion.points.oversample = 2.0
model.postprocess.instance = None
model.postprocess.semantic = L(SemanticInference)(resize_masks=True)

train.max_iter = 600
train.output_dir = "output/maskdino_custom_semantic"
