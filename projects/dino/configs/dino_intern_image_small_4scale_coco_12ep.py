"""DINO, InternImage-S, four levels (4scale), COCO detection, 12 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/dino/configs/dino_intern_image_small_4scale_coco_12ep.py \\
        dataloader.root=/path/to/coco train.init_checkpoint=FILE

`FILE` has the weights of the backbone or of the whole detector.
This config builds 68.82 M parameters.
"""

from .dino_intern_image_tiny_4scale_coco_12ep import dataloader, model, optimizer, scheduler, train

model.backbone.width = 80
model.backbone.depths = [4, 4, 21, 4]
model.backbone.groups = 5
model.backbone.post_norm = True
model.backbone.offset_scale = 1.0
model.backbone.drop_path_rate = 0.3

train.output_dir = "output/dino_intern_image_small_4scale_coco_12ep"
