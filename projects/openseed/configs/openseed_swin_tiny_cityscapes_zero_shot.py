"""OpenSeeD, Swin-T, Cityscapes panoptic segmentation without training on it: the classes are words.

    detrex eval projects/openseed/configs/openseed_swin_tiny_cityscapes_zero_shot.py --weights WEIGHTS \\
        dataloader.root=/path/to/cityscapes

The words are the names of the classes of the data; `--classes FILE` gives others, a name on each line. The
same as a command of `tools/`:

    python tools/train_net.py --eval-only \\
        --config-file projects/openseed/configs/openseed_swin_tiny_cityscapes_zero_shot.py \\
        train.init_checkpoint=WEIGHTS dataloader.root=/path/to/cityscapes

The results of such evaluations are not among the facts that this project has.
"""

from detrex.config import get_config

from .models.openseed_swin_tiny import model
from .openseed_swin_tiny_coco_panoptic import optimizer, scheduler, train

dataloader = get_config("common/data/cityscapes_panoptic.py").dataloader

train.output_dir = "output/openseed_swin_tiny_cityscapes_zero_shot"
