"""Mapillary Vistas panoptic segmentation, of its own panoptic files.

Expected under `dataloader.root`, as Mapillary Vistas 1.2 is distributed, with nothing to prepare:
`{training,validation}/images/` and `{training,validation}/panoptic/` with PNGs and `panoptic_2018.json`. For
version 2.0 set `dataloader.panoptic=v2.0/panoptic` and `dataloader.file=panoptic_2020.json`.
"""

from detrex.config import get_config
from detrex.data import dataset_root

dataloader = get_config("common/data/custom_panoptic.py").dataloader
dataloader.root = dataset_root("mapillary_vistas")
dataloader.panoptic = "panoptic"
dataloader.file = "panoptic_2018.json"
for loader, split in ((dataloader.train, "training"), (dataloader.test, "validation")):
    folder = "${dataloader.root}/" + split
    loader.dataset.images = folder + "/images"
    loader.dataset.annotations = folder + "/${dataloader.panoptic}/${dataloader.file}"
    loader.dataset.segments = folder + "/${dataloader.panoptic}"
dataloader.train.mapper.image_size = 1024
dataloader.test.mapper.size = 1024
dataloader.test.mapper.max_size = 4096
