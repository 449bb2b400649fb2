"""Models and their replaceable parts."""

from detrex.modeling.backbone import TimmBackbone, backbone_channels
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.decoder import DecoderOutput, MaskDecoder
from detrex.modeling.denoising import Denoising
from detrex.modeling.detector import Detector
from detrex.modeling.losses import FocalClassLoss, SoftmaxClassLoss
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.pixel_decoder import DeformablePixelDecoder
from detrex.modeling.points import GridPoints, RandomPoints
from detrex.modeling.postprocess import InstanceInference, PanopticInference, PostProcess, SemanticInference
from detrex.modeling.query_init import LearnedQueries, TwoStageQueries
from detrex.modeling.simple_pyramid import VitPyramid, pyramid_channels
from detrex.modeling.swin import SwinBackbone

__all__ = [
    "DecoderOutput",
    "DeformablePixelDecoder",
    "Denoising",
    "Detector",
    "FocalClassLoss",
    "GridPoints",
    "HungarianMatcher",
    "InstanceInference",
    "LearnedQueries",
    "MaskDecoder",
    "PanopticInference",
    "PostProcess",
    "RandomPoints",
    "SemanticInference",
    "SetCriterion",
    "SoftmaxClassLoss",
    "SwinBackbone",
    "TimmBackbone",
    "TwoStageQueries",
    "VitPyramid",
    "backbone_channels",
    "pyramid_channels",
]
