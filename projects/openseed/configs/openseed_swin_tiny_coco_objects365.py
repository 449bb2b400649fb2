"""OpenSeeD, Swin-T, COCO panoptic segmentation and Objects365 detection together, with queries for stuff.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/openseed/configs/openseed_swin_tiny_coco_objects365.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true \\
        dataloader.train.joined.o365.dataset.images=/path/to/objects365/train \\
        dataloader.train.joined.o365.dataset.annotations=/path/to/zhiyuan_objv2_train.json

Each step takes a batch of both: 16 images of COCO with masks, and 2 of Objects365 with boxes alone, whose
losses have names that begin with "o365.". The settings are those of the released configuration
`swint_lang_o365_decouple`, for which no result was published; this config builds 116.24 M parameters.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import build_train_loader, class_names
from detrex.modeling.text import Vocabulary

from .models.openseed_swin_tiny_decoupled import model
from .openseed_swin_tiny_coco_panoptic import dataloader, optimizer, scheduler, train

_objects365 = get_config("common/data/objects365_detection.py").dataloader
_o365 = L(build_train_loader)(
    dataset=_objects365.train.dataset,
    mapper=dataloader.train.mapper,
    total_batch_size=2,
    num_workers=1,
    seed="${dataloader.train.seed}",
)
_o365.dataset.images = "${dataloader.objects365_root}/train"
_o365.dataset.annotations = "${dataloader.objects365_root}/annotations/zhiyuan_objv2_train.json"
dataloader.objects365_root = _objects365.root
dataloader.train.joined = {"o365": _o365}

# Where the file is missing, as where only predictions are wanted, these names are too.
model.others = {
    "o365": L(Vocabulary)(
        names=L(class_names)(
            annotations="${dataloader.train.joined.o365.dataset.annotations}", optional=True
        ),
        style="alternatives",
    )
}

train.output_dir = "output/openseed_swin_tiny_coco_objects365"
