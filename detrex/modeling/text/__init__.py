"""Classes that are texts: text encoders, scores by similarity, and a detector that finds what words name."""

from detrex.modeling.text.class_score import CosineClassifier, TextScore
from detrex.modeling.text.denoising import TextDenoising
from detrex.modeling.text.detector import TextDetector
from detrex.modeling.text.encoder import TextEncoder
from detrex.modeling.text.tokenizer import ClipTokenizer
from detrex.modeling.text.vocabulary import Vocabulary, for_evaluation, imagenet_templates
from detrex.modeling.text.words import WordEncoder, WordTokenizer

__all__ = [
    "ClipTokenizer",
    "CosineClassifier",
    "TextDenoising",
    "TextDetector",
    "TextEncoder",
    "TextScore",
    "Vocabulary",
    "WordEncoder",
    "WordTokenizer",
    "for_evaluation",
    "imagenet_templates",
]
