"""Mapillary Vistas semantic segmentation; classes come from its own `config_v1.2.json`.

Expected under `dataloader.root`, as Mapillary Vistas 1.2 is distributed, with nothing to prepare:
`{training,validation}/images/`, `{training,validation}/labels/` and `config_v1.2.json`. Its last class, 65,
is "unlabeled", which is not evaluated. For version 2.0 set `dataloader.config=config_v2.0.json`,
`dataloader.labels=v2.0/labels`, and as `dataloader.train.dataset.ignore_label` the places in its list of all
labels that are not evaluated.
"""

from detrex.config import get_config
from detrex.data import dataset_root

dataloader = get_config("common/data/semantic.py").dataloader
dataloader.root = dataset_root("mapillary_vistas")
dataloader.config = "config_v1.2.json"
dataloader.labels = "labels"
for loader, split in ((dataloader.train, "training"), (dataloader.test, "validation")):
    loader.dataset.images = "${dataloader.root}/" + split + "/images"
    loader.dataset.segments = "${dataloader.root}/" + split + "/${dataloader.labels}"
dataloader.train.dataset.classes = "${dataloader.root}/${dataloader.config}"
dataloader.train.dataset.ignore_label = 65
dataloader.train.mapper.image_size = 1024
dataloader.test.mapper.size = 1024
dataloader.test.mapper.max_size = 4096
