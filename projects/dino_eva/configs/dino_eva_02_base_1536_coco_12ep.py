"""DINO, EVA-02-B, images of 1536 pixels, COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino_eva/configs/dino_eva_02_base_1536_coco_12ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` has the weights of EVA-02-B after pretraining, with patches of 16 pixels.
Six blocks attend to the whole map. That windows have 32 cells a side is from memory.
Published result (detrex zoo): 58.1 box AP on val2017; this config builds 108.11 M parameters.
"""

from .dino_eva_02_base_1024_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.image_size = 1536
model.backbone.window = 32
model.backbone.global_blocks = [1, 3, 5, 7, 9, 11]

train.output_dir = "output/dino_eva_02_base_1536_coco_12ep"
