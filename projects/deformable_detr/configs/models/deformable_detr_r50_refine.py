"""Deformable DETR whose layers refine the boxes of the layer before."""

from .deformable_detr_r50 import model

model.decoder.refine_boxes = True
