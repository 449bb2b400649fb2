"""Deformable DETR whose layers refine the boxes of the layer before."""

from .deformable_detr_r50 import model

model.decoder.refine_boxes = True
model.decoder.heads.num_sets = "${..layers.num_layers}"
