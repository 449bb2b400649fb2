"""Evaluation of `promptable_shapes.py` on what its training never showed, such as a red star.

    python -m detrex eval --config-file projects/promptable/configs/promptable_shapes_held_out.py \\
        --weights output/promptable_shapes
"""

from .promptable_shapes import dataloader, model, optimizer, scenes, scheduler, train

dataloader.categories = "${dataloader.test.dataset.annotations}"
dataloader.test.dataset.images = scenes("held_out")
dataloader.test.dataset.annotations = scenes("annotations/instances_held_out.json")
dataloader.evaluators.coco.classes = "${dataloader.categories}"

train.output_dir = "output/promptable_shapes_held_out"
