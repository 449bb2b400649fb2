"""Models and their replaceable parts."""

from detrex.modeling.assignment import (
    Assignment,
    Known,
    Matches,
    OneToMany,
    OneToOne,
    SupervisedPrediction,
    Truth,
)
from detrex.modeling.backbones import (
    SwinBackbone,
    TimmBackbone,
    VitPyramid,
    backbone_channels,
    pyramid_channels,
)
from detrex.modeling.class_score import (
    ClassProbabilities,
    ClassScore,
    ClassTargets,
    SigmoidScore,
    SoftmaxScore,
)
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.decoder import (
    ConditionalDecoderLayers,
    Decoder,
    DecoderOutput,
    DeformableDecoderLayers,
    PlainDecoderLayers,
)
from detrex.modeling.detector import Detector
from detrex.modeling.encoder import DeformableEncoder, PlainEncoder
from detrex.modeling.heads import PredictionHeads
from detrex.modeling.initialisation import PublishedInitialisation
from detrex.modeling.matcher import Matcher
from detrex.modeling.pixel_head import PixelHead
from detrex.modeling.points import GridPoints, RandomPoints
from detrex.modeling.queries import (
    AnchorPosition,
    BoxesFromMasks,
    BoxPosition,
    ConditionalPosition,
    ContrastiveDenoising,
    Denoising,
    EncodedProposals,
    FixedPosition,
    InitialQueries,
    LearnedBoxes,
    LearnedPositions,
    ProposalQueries,
    QueryGroup,
    QuerySource,
)
from detrex.modeling.results import InstanceInference, PanopticInference, PostProcess, SemanticInference

__all__ = [
    "AnchorPosition",
    "Assignment",
    "BoxPosition",
    "BoxesFromMasks",
    "ClassProbabilities",
    "ClassScore",
    "ClassTargets",
    "ConditionalDecoderLayers",
    "ConditionalPosition",
    "ContrastiveDenoising",
    "Decoder",
    "DecoderOutput",
    "DeformableDecoderLayers",
    "DeformableEncoder",
    "Denoising",
    "Detector",
    "EncodedProposals",
    "FixedPosition",
    "GridPoints",
    "InitialQueries",
    "InstanceInference",
    "Known",
    "LearnedBoxes",
    "LearnedPositions",
    "Matcher",
    "Matches",
    "OneToMany",
    "OneToOne",
    "PanopticInference",
    "PixelHead",
    "PlainDecoderLayers",
    "PlainEncoder",
    "PostProcess",
    "PredictionHeads",
    "ProposalQueries",
    "PublishedInitialisation",
    "QueryGroup",
    "QuerySource",
    "RandomPoints",
    "SemanticInference",
    "SetCriterion",
    "SigmoidScore",
    "SoftmaxScore",
    "SupervisedPrediction",
    "SwinBackbone",
    "TimmBackbone",
    "Truth",
    "VitPyramid",
    "backbone_channels",
    "pyramid_channels",
]
