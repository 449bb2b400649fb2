"""Cityscapes semantic segmentation, the 19 classes of its benchmark, as for the published Mask DINO.

Expected under `dataloader.root`, as Cityscapes is distributed, with nothing to prepare:
`leftImg8bit/{train,val}/<city>/*_leftImg8bit.png` and `gtFine/{train,val}/<city>/*_gtFine_labelIds.png`.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import category_file, dataset_root

dataloader = get_config("common/data/ade20k_semantic.py").dataloader
dataloader.root = dataset_root("cityscapes")
dataloader.categories = L(category_file)(name="cityscapes_semantic")
for loader, split in ((dataloader.train, "train"), (dataloader.test, "val")):
    loader.dataset.images = "${dataloader.root}/leftImg8bit/" + split
    loader.dataset.segments = "${dataloader.root}/gtFine/" + split
dataloader.train.dataset.image_suffix = "_leftImg8bit.png"
dataloader.train.dataset.segment_suffix = "_gtFine_labelIds.png"
# What the benchmark does not count: from unlabelled (0) to ground (6), rail track, guard rail and so on.
dataloader.train.dataset.ignore_label = [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30]
dataloader.train.mapper.sizes = [1024 * tenth // 10 for tenth in range(5, 21)]
dataloader.train.mapper.max_size = 4096
dataloader.train.mapper.crop_size = [512, 1024]
dataloader.test.mapper.size = 1024
dataloader.test.mapper.max_size = 2048
