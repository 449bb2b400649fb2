"""Plain data types with documented shapes; they know nothing of models or data sets."""

from detrex.structures.batch import BatchTargets
from detrex.structures.boxes import aligned_giou, aligned_iou, boxes_from_masks, pairwise_giou, pairwise_iou
from detrex.structures.categories import Categories, distinct_colors
from detrex.structures.crops import CroppedMask, Rectangle
from detrex.structures.images import PaddedImages
from detrex.structures.instances import Instances
from detrex.structures.masks import PackedMasks
from detrex.structures.prediction import Prediction
from detrex.structures.prompts import PromptedMasks, Prompts
from detrex.structures.pyramid import Pyramid
from detrex.structures.rle import RunLengthMasks, encode_masks
from detrex.structures.sample import Sample, Targets
from detrex.structures.semantic import class_map

__all__ = [
    "BatchTargets",
    "Categories",
    "CroppedMask",
    "Instances",
    "PackedMasks",
    "PaddedImages",
    "Prediction",
    "PromptedMasks",
    "Prompts",
    "Pyramid",
    "Rectangle",
    "RunLengthMasks",
    "Sample",
    "Targets",
    "aligned_giou",
    "aligned_iou",
    "boxes_from_masks",
    "class_map",
    "distinct_colors",
    "encode_masks",
    "pairwise_giou",
    "pairwise_iou",
]
