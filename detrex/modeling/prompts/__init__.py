"""Masks for clicks and boxes."""

from detrex.modeling.prompts.criterion import PromptCriterion, QualityScore, WithinPrompts
from detrex.modeling.prompts.detector import EncodedImages, PromptDetector
from detrex.modeling.prompts.drawing import DrawnPrompts, MedianPrompts, RandomPrompts
from detrex.modeling.prompts.everything import AutomaticMasks
from detrex.modeling.prompts.queries import PromptQueries

__all__ = [
    "AutomaticMasks",
    "DrawnPrompts",
    "EncodedImages",
    "MedianPrompts",
    "PromptCriterion",
    "PromptDetector",
    "PromptQueries",
    "QualityScore",
    "RandomPrompts",
    "WithinPrompts",
]
