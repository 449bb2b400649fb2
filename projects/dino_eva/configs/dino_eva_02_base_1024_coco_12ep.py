"""DINO, EVA-02-B, images of 1024 pixels, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino_eva/configs/dino_eva_02_base_1024_coco_12ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` has the weights of EVA-02-B after pretraining, with patches of 16 pixels.
Large-scale jitter between 0.1 and 2, and learning rates that fall by 0.7 from block to block.
Published result (detrex zoo): 55.8 box AP on val2017; this config builds 108.11 M parameters.
"""

from detrex.config import get_config

from .models.dino_eva_02_base import model

_run = get_config("common/coco_run.py")
dataloader, optimizer, scheduler, train = _run.dataloader, _run.optimizer, _run.scheduler, _run.train

_data = get_config("common/data/coco_instance.py").dataloader
dataloader.train.mapper = _data.train.mapper
dataloader.train.mapper.image_size = "${model.backbone.image_size}"
dataloader.test.mapper.size = dataloader.test.mapper.max_size = "${model.backbone.image_size}"

optimizer.lr_factors = {}
optimizer.layer_decay = {"backbone": 0.7}

train.max_iter.epochs = 12
scheduler.milestones.epochs = [11]

train.output_dir = "output/dino_eva_02_base_1024_coco_12ep"
