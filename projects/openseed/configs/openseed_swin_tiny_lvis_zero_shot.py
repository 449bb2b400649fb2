"""OpenSeeD, Swin-T, LVIS v1 instance segmentation without training on it: its 1203 classes are words.

    detrex eval projects/openseed/configs/openseed_swin_tiny_lvis_zero_shot.py --weights WEIGHTS \\
        dataloader.root=/path/with/coco/and/lvis

The words are the names of the classes of the data; `--classes FILE` gives others, a name on each line. The
same as a command of `tools/`:

    python tools/train_net.py --eval-only \\
        --config-file projects/openseed/configs/openseed_swin_tiny_lvis_zero_shot.py \\
        train.init_checkpoint=WEIGHTS dataloader.root=/path/with/coco/and/lvis

The results of such evaluations are not among the facts that this project has.
"""

from detrex.config import get_config

from .models.openseed_swin_tiny import model
from .openseed_swin_tiny_coco_panoptic import optimizer, scheduler, train

dataloader = get_config("common/data/lvis_v1_instance.py").dataloader

model.postprocess.panoptic = model.postprocess.semantic = None
model.postprocess.instance.max_detections = 300
train.output_dir = "output/openseed_swin_tiny_lvis_zero_shot"
