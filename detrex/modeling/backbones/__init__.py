"""Backbones: images to feature maps by stride."""

from detrex.modeling.backbones.swin import SwinBackbone
from detrex.modeling.backbones.timm_backbone import TimmBackbone, backbone_channels
from detrex.modeling.backbones.vit import VitPyramid, pyramid_channels

__all__ = ["SwinBackbone", "TimmBackbone", "VitPyramid", "backbone_channels", "pyramid_channels"]
