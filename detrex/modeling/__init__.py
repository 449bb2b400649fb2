"""Models and their replaceable parts."""

from detrex.modeling.backbone import TimmBackbone, backbone_channels
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.decoder import (
    ConditionalDecoder,
    Decoder,
    DecoderOutput,
    DeformableDecoder,
    PlainDecoder,
)
from detrex.modeling.denoising import ContrastiveDenoising, Denoising, DenoisingQueries
from detrex.modeling.detector import Detector
from detrex.modeling.encoder import DeformableEncoder, PlainEncoder
from detrex.modeling.heads import PredictionHeads
from detrex.modeling.losses import FocalClassLoss, SoftmaxClassLoss
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.pixel_head import PixelHead
from detrex.modeling.points import GridPoints, RandomPoints
from detrex.modeling.postprocess import InstanceInference, PanopticInference, PostProcess, SemanticInference
from detrex.modeling.query_init import (
    EncodedProposals,
    InitialQueries,
    LearnedBoxes,
    LearnedPositions,
    ProposalQueries,
)
from detrex.modeling.query_position import AnchorPosition, BoxPosition, ConditionalPosition, FixedPosition
from detrex.modeling.simple_pyramid import VitPyramid, pyramid_channels
from detrex.modeling.swin import SwinBackbone

__all__ = [
    "AnchorPosition",
    "BoxPosition",
    "ConditionalDecoder",
    "ConditionalPosition",
    "ContrastiveDenoising",
    "Decoder",
    "DecoderOutput",
    "DeformableDecoder",
    "DeformableEncoder",
    "Denoising",
    "DenoisingQueries",
    "Detector",
    "EncodedProposals",
    "FixedPosition",
    "FocalClassLoss",
    "GridPoints",
    "HungarianMatcher",
    "InitialQueries",
    "InstanceInference",
    "LearnedBoxes",
    "LearnedPositions",
    "PanopticInference",
    "PixelHead",
    "PlainDecoder",
    "PlainEncoder",
    "PostProcess",
    "PredictionHeads",
    "ProposalQueries",
    "RandomPoints",
    "SemanticInference",
    "SetCriterion",
    "SoftmaxClassLoss",
    "SwinBackbone",
    "TimmBackbone",
    "VitPyramid",
    "backbone_channels",
    "pyramid_channels",
]
