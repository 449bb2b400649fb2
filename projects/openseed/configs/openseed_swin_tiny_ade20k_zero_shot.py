"""OpenSeeD, Swin-T, ADE20K panoptic segmentation without training on it: the classes are words.

    detrex eval projects/openseed/configs/openseed_swin_tiny_ade20k_zero_shot.py --weights WEIGHTS \\
        dataloader.root=/path/to/ADEChallengeData2016

The words are the names of the classes of the data; `--classes FILE` gives others, a name on each line. The
same as a command of `tools/`:

    python tools/train_net.py --eval-only \\
        --config-file projects/openseed/configs/openseed_swin_tiny_ade20k_zero_shot.py \\
        train.init_checkpoint=WEIGHTS dataloader.root=/path/to/ADEChallengeData2016

The results of such evaluations are not among the facts that this project has.
"""

from detrex.config import get_config

from .models.openseed_swin_tiny import model
from .openseed_swin_tiny_coco_panoptic import optimizer, scheduler, train

dataloader = get_config("common/data/ade20k_panoptic.py").dataloader

train.output_dir = "output/openseed_swin_tiny_ade20k_zero_shot"
