"""CO-MOT, ResNet-50, DanceTrack, 10 epochs of clips of five frames.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/co_mot/configs/co_mot_r50_dancetrack_10ep.py \\
        dataloader.root=/path/to/dancetrack train.init_checkpoint=DETECTOR

`DETECTOR`: a Deformable DETR trained on COCO, from which the published run starts.
Published: 69.9 HOTA on the test set of DanceTrack.
"""

from detrex.config import get_config
from detrex.engine import epochs

from .models.co_mot_r50 import model

dataloader = get_config("common/data/dancetrack.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").one_step
train = get_config("common/train.py").train

optimizer.lr = 2e-4
optimizer.weight_decay = 1e-4
optimizer.embedding_weight_decay = "${.weight_decay}"

train.max_iter = epochs(10)
scheduler.milestones.epochs = [8]
train.clip_grad.max_norm = 0.1

train.output_dir = "output/co_mot_r50_dancetrack_10ep"
