"""Mask DINO with the ConvNeXt-L of DINOv3, in the place of the published Swin-L."""

from .maskdino_convnext_large import model

model.backbone.name = "convnext_large.dinov3_lvd1689m"
