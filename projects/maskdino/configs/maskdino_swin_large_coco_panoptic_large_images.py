"""Mask DINO, Swin-L, COCO panoptic segmentation, evaluated on larger images.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_swin_large_coco_panoptic_large_images.py \\
        dataloader.root=/path/to/coco --eval-only train.init_checkpoint=FILE

The model and the checkpoint of `maskdino_swin_large_coco_panoptic_50ep.py`; test images are 1.2 times as
large, which is the paper's factor (arXiv 2206.02777, for its largest models). The sizes that follow from it
are ours: a shorter side of 960 pixels, and a longer one of at most 1600.
No result was published for this checkpoint at this size; this config builds 222.83 M parameters.
"""

from .maskdino_swin_large_coco_panoptic_50ep import dataloader, model, optimizer, scheduler, train

dataloader.test.mapper.size = 960
dataloader.test.mapper.max_size = 1600

train.output_dir = "output/maskdino_swin_large_coco_panoptic_large_images"
