"""ADE20K semantic segmentation, 150 classes, with augmentation as for the published Mask DINO.

Expected under `dataloader.root`, as distributed for the scene parsing challenge (ADEChallengeData2016):
`images/{training,validation}/` and `annotations/{training,validation}/`, whose pixels are 1 to 150, and 0 for
what is none of the classes.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import SemanticMapper, category_file, dataset_root

dataloader = get_config("common/data/semantic.py").dataloader
dataloader.root = dataset_root("ADEChallengeData2016")
dataloader.categories = L(category_file)(name="ade20k_semantic")
for loader, split in ((dataloader.train, "training"), (dataloader.test, "validation")):
    loader.dataset.images = "${dataloader.root}/images/" + split
    loader.dataset.segments = "${dataloader.root}/annotations/" + split
dataloader.train.dataset.classes = "${dataloader.categories}"
dataloader.train.dataset.ignore_label = 0
dataloader.train.mapper = L(SemanticMapper)(
    sizes=[512 * tenth // 10 for tenth in range(5, 21)],  # half to twice the crop
    max_size=2048,
    crop_size=512,
    max_class_share=1.0,  # crops that are mostly of one class are taken too
    flip_probability=0.5,
    pad_value=128,
    color_jitter=dataloader.train.mapper.color_jitter,
)
