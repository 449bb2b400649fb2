"""Mask DINO with a ConvNeXt-L, in the place of the published Swin-L."""

from .maskdino_r50_five_levels import model

model.backbone.name = "convnext_large.fb_in22k_ft_in1k"
model.backbone.options = dict(drop_path_rate=0.3)
