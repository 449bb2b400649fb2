"""Backbones, which turn images into feature maps by stride."""

from detrex.modeling.backbones.intern_image import InternImage, intern_image_channels
from detrex.modeling.backbones.swin import SwinBackbone
from detrex.modeling.backbones.timm_backbone import NormedTimmBackbone, TimmBackbone, backbone_channels
from detrex.modeling.backbones.vit import VitPyramid, pyramid_channels
from detrex.modeling.backbones.windowed_vit import Eva, Eva02, VitDet

__all__ = [
    "Eva",
    "Eva02",
    "InternImage",
    "NormedTimmBackbone",
    "SwinBackbone",
    "TimmBackbone",
    "VitDet",
    "VitPyramid",
    "backbone_channels",
    "intern_image_channels",
    "pyramid_channels",
]
