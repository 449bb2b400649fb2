"""DETA, Swin-L, five levels, from Objects365, COCO detection, 24 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/deta/configs/deta_swin_large_5scale_coco_24ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` is the model trained on Objects365, with its 365 classes; heads start anew where classes differ.
Published result (detrex zoo): 62.9 box AP on val2017; this config builds 218.76 M parameters.
"""

from .deta_r50_5scale_coco_12ep import dataloader, optimizer, scheduler, train
from .models.deta_swin_large import model

# The sizes are those of the other rows, times 1.5.
dataloader.train.mapper.sizes = [720, 768, 816, 864, 912, 960, 1008, 1056, 1104, 1152, 1200]
dataloader.train.mapper.max_size = 2000
dataloader.test.mapper.size = 1200
dataloader.test.mapper.max_size = 2000

train.max_iter.epochs = 24
scheduler.milestones.epochs = [20]

train.output_dir = "output/deta_swin_large_5scale_coco_24ep"
