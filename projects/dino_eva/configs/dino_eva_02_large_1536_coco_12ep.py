"""DINO, EVA-02-L, images of 1536 pixels, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino_eva/configs/dino_eva_02_large_1536_coco_12ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` has the weights of EVA-02-L after pretraining, with patches of 16 pixels.
Eight blocks attend to the whole map. That windows have 32 cells a side is from memory.
Published result (detrex zoo): 61.6 box AP on val2017; this config builds 326.74 M parameters.
"""

from .dino_eva_02_large_1024_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.image_size = 1536
model.backbone.window = 32
model.backbone.global_blocks = [2, 5, 8, 11, 14, 17, 20, 23]

train.output_dir = "output/dino_eva_02_large_1536_coco_12ep"
